// SPDX-License-Identifier: GPL-2.0
// The page: what the events bring goes to the views.

import { getJson } from './api.js';
import { faultRate, processColumns } from './columns.js';
import { showLive, stayConnected } from './connection.js';
import { detailView } from './detail.js';
import { $, el, setText } from './dom.js';
import { bytes, count, perSecond, plural, rate, seconds } from './format.js';
import { Processes, SPAN } from './processes.js';
import { rateChart } from './rate.js';
import { liveTable } from './table.js';
import { onThemeChange } from './theme.js';

const processes = new Processes();
let status = null;
let time = 0; // of the last sample

const chart = rateChart($('rate'), $('rate-note'));
const detail = detailView(() => status);
const table = liveTable($('process-table'), processColumns, {
	key: (p) => p.pid,
	sort: ['rate', -1],
	onOpen: (p) => openProcess(p),
	openLabel: (p) => `${p.comm} ${p.pid}: show it below`,
	isOpen: (p) => p.pid === detail.pid,
});

function openProcess(process) {
	history.replaceState(null, '', `#pid=${process.pid}`);
	detail.show(process);
	draw();
}

// The one that the address names, else the busiest.
function openFirst() {
	const wanted = Number(/^#pid=(\d+)$/.exec(location.hash)?.[1]);
	const busiest = [...processes.all].sort((a, b) => b.dirty_bytes_per_s - a.dirty_bytes_per_s)[0];
	const first = processes.get(wanted) ?? busiest;
	if (first) openProcess(first);
}

function drawTotals() {
	const sum = (value) => processes.all.reduce((all, p) => all + value(p), 0);
	const any = processes.all.length > 0;
	setText($('total-rate'), rate(any ? sum((p) => p.dirty_bytes_per_s) : null));
	setText($('total-wws'), bytes(any ? sum((p) => p.wws_bytes[10]) : null));
	setText($('total-faults'), perSecond(any ? sum(faultRate) : null));
	setText($('total-lost'), count(status?.lost_events));
}

function drawAbout() {
	if (!status) return;
	const sampled = status.sampling.active ? ', many write faults: a sample of them is told' : '';
	setText(
		$('about'),
		`${location.hostname}, ${plural(processes.all.length, 'process', 'processes')}, ` +
			`${status.tracker} tracker, every ${seconds(status.interval_s)}${sampled}${status.events ? '' : `, no events: ${status.no_events}`}`,
	);
}

function draw() {
	const all = processes.all.sort((a, b) => a.pid - b.pid);
	chart.update(all, detail.pid, time);
	table.update(all);
	drawTotals();
	drawAbout();
	$('no-process').hidden = all.length > 0;
	$('process-scroll').hidden = all.length === 0;
}

function takeSample(sample) {
	time = sample.time;
	processes.take(sample.processes, time);
	Object.assign(status, {
		index: sample.index,
		sampling: { ...status.sampling, ...sample.sampling },
	});
	status.lost_events += sample.processes.reduce((all, p) => all + p.lost_events, 0);
	showLive(time);
	if (detail.pid == null) openFirst();
	const open = processes.get(detail.pid);
	if (open) detail.take(open);
	else if (detail.pid != null) detail.gone();
	if (!document.hidden) draw();
}

// After each connection: what is there now, and what was missed.
async function start(hello) {
	status = hello;
	time = status.time;
	const { processes: list, refused } = await getJson('api/processes');
	processes.forgetPast();
	processes.take(list, time);
	showRefused(refused);
	showLive(time);
	if (detail.pid == null) openFirst();
	draw();
	await processes.readPast(Math.ceil(SPAN / status.interval_s));
	draw();
	detail.look(true);
}

function showRefused(refused) {
	$('refused').replaceChildren(
		...refused.map(({ comm, pid, why }) =>
			el('li', {}, el('strong', {}, `${comm} ${pid}`), ` is not followed: ${why}`),
		),
	);
}

const events = {
	hello: (data) => start(data).catch(() => {}), // what failed is asked for again with the next connection
	sample: (data) => status && takeSample(data),
	process: () =>
		getJson('api/processes')
			.then(({ refused }) => showRefused(refused))
			.catch(() => {}),
	checkpoint: () => detail.look(true),
};

onThemeChange(draw);
document.addEventListener('visibilitychange', () => {
	if (document.hidden) return;
	draw();
	detail.look(true);
});
window.addEventListener('hashchange', openFirst);
stayConnected((event, data) => events[event]?.(data));
