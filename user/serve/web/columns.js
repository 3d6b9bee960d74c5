// SPDX-License-Identifier: GPL-2.0
// The columns of all tables, as table.js wants them: num(id, label, value, show, more), text(...),
// code(...). `less` ones are left out on a phone, `least` ones on a tablet too.

import { el, setText } from './dom.js';
import {
	bytes,
	count,
	date,
	percent,
	perSecond,
	plural,
	rate,
	seconds,
	timeOfDay,
} from './format.js';
import { seriesColor, seriesStyle } from './theme.js';

const column =
	(kind) =>
	(id, label, value, show = (v) => String(v ?? ''), more = {}) => ({
		id,
		label,
		kind,
		value,
		text: (row) => show(value(row)),
		...more,
	});
const num = column('num');
const text = column('text');
const code = column('code');

const less = { class: 'less' };
const least = { class: 'least' };
const distinct = (s) => ({ title: `Distinct memory written in the last ${plural(s, 'second')}` });

// A long text is cut where the column ends: the whole of it is its title.
function cut(cell, shown) {
	setText(cell, shown);
	cell.title = shown;
}

// Parts of a cell: those of a class are not shown on every screen.
function parts(cell, ...wanted) {
	if (!cell.firstChild) cell.append(...wanted.map(([, kind]) => el('span', { class: kind })));
	wanted.forEach(([shown], i) => setText(cell.children[i], shown));
}

function fillName(place, p) {
	if (!place.firstChild)
		place.append(
			el('span', { class: 'swatch', 'aria-hidden': 'true' }),
			el('span'),
			el('span', { class: 'narrow muted', 'aria-hidden': 'true' }),
		);
	const [swatch, name, pid] = place.children;
	swatch.style.borderTopColor = seriesColor(p.color);
	swatch.style.borderTopStyle = seriesStyle(p.color);
	setText(name, p.comm);
	setText(pid, ` ${p.pid}`);
	place.closest('tr').classList.toggle('ended', p.ended);
}

export const faultRate = (p) => p.faults / (p.interval_s || 1);
const kernelRate = (p) => p.kernel_faults / (p.interval_s || 1);
const workingSet = (s, more) =>
	num(`wws${s}`, `${s} s`, (row) => row.wws_bytes[s], bytes, { ...distinct(s), ...more });

export const processColumns = [
	text('name', 'Process', (p) => p.comm, undefined, { fill: fillName }),
	num('pid', 'Pid', (p) => p.pid, undefined, less),
	num('rate', 'Dirty rate', (p) => p.dirty_bytes_per_s, rate, {
		title: 'Unique pages written, per second',
	}),
	workingSet(1, less),
	workingSet(10, less),
	workingSet(60),
	num('faults', 'Write faults', faultRate, perSecond, less),
	num('kernel', 'By the kernel', kernelRate, perSecond, {
		...least,
		title: 'Write faults where the kernel wrote for the process',
	}),
	num('lost', 'Lost', (p) => p.lost_events, count, {
		...least,
		title: 'Events of the last interval that did not fit',
	}),
];

export const areaColumns = [
	code('start', 'Addresses', (v) => v.start.padStart(20), undefined, {
		fill: (cell, v) => parts(cell, [v.start], [`–${v.end.slice(2)}`, 'less']),
	}),
	text('name', 'Memory', (v) => v.name, undefined, {
		class: 'grow',
		fill: (cell, v) => cut(cell, v.name),
	}),
	text('kind', 'Kind', (v) => v.kind, undefined, least),
	code('prot', 'Access', (v) => v.prot, undefined, least),
	num('rate', 'Dirty rate', (v) => v.dirty_bytes_per_s, rate),
	workingSet(10, less),
	workingSet(60, less),
];

export const segmentColumns = [
	code('key', 'Key', (s) => s.key),
	num('id', 'Id', (s) => s.id),
	num('size', 'Size', (s) => s.size_bytes, bytes),
	num('own', 'Dirty rate', (s) => s.own_rate, rate, { title: 'Written by this process' }),
	num('all', 'By all', (s) => s.dirty_bytes_per_s, rate, {
		...less,
		title: 'Written by all followed processes',
	}),
	num('attached', 'Attached', (s) => s.attach_count, count, {
		...less,
		title: 'How often, in the whole system',
	}),
	text('pids', 'By', (s) => s.pids.join(' '), undefined, { class: 'less grow' }),
];

export const writerColumns = [
	code('function', 'Function', (w) => w.function, undefined, {
		class: 'grow',
		fill: (cell, w) => cut(cell, w.function),
	}),
	text('comm', 'Thread', (w) => w.comm, undefined, less),
	num('tid', 'Id', (w) => w.tid, undefined, less),
	num('faults', 'Write faults', (w) => w.faults, count),
	num('share', 'Share', (w) => w.share, percent),
	num('kernel', 'By the kernel', (w) => w.kernel_faults, count, {
		...less,
		title: 'Where the kernel wrote for the thread',
	}),
];

export const versionColumns = [
	num('version', 'Version', (v) => v.version),
	num('time', 'Time', (v) => v.time, undefined, {
		fill: (cell, v) => parts(cell, [`${date(v.time)} `, 'less'], [timeOfDay(v.time)]),
	}),
	num('bytes', 'Size', (v) => v.bytes, bytes),
	num('pages', 'Pages', (v) => v.pages, count, less),
	num('pause', 'Pause', (v) => v.pause_s, seconds),
	num('total', 'Total', (v) => v.total_s, seconds, less),
	text('type', 'Type', (v) => v.type),
	text('label', 'Label', (v) => v.label, undefined, { class: 'less grow' }),
];
