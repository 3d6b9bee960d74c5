// SPDX-License-Identifier: GPL-2.0
// One process in full: working set, heat map, flame graph, memory areas, segments, versions of its job, forecast.

import { getJson, NotFound } from './api.js';
import { areaColumns, segmentColumns, writerColumns } from './columns.js';
import { $, el, setText } from './dom.js';
import { flameGraph } from './flame.js';
import { forecastView } from './forecast.js';
import { bytes, plural } from './format.js';
import { heatmap } from './heatmap.js';
import { liveTable } from './table.js';
import { versionsView } from './versions.js';

const WINDOWS = ['1', '10', '60'];
const ROWS = 96;
const SLOW = 3; // seconds between two looks at what costs more

function workingSet(list) {
	const bars = WINDOWS.map((window) => {
		const bar = el('i');
		const value = el('dd', { class: 'value' }, '–');
		list.append(
			el(
				'div',
				{},
				el('dt', {}, `${window} s`),
				el('dd', { class: 'bar', 'aria-hidden': 'true' }, bar),
				value,
			),
		);
		return { window, bar, value };
	});
	return (sizes) => {
		const most = Math.max(1, ...Object.values(sizes));
		for (const { window, bar, value } of bars) {
			bar.style.width = `${(100 * sizes[window]) / most}%`;
			setText(value, bytes(sizes[window]));
		}
	};
}

export function detailView(status) {
	const pageSize = () => status().page_size;
	const views = {
		workingSet: workingSet($('wws')),
		forecast: forecastView($('forecast'), $('forecast-note')),
		heat: heatmap($('heat'), { readout: $('heat-readout'), scale: $('heat-scale'), pageSize }),
		flame: flameGraph($('flame'), { readout: $('flame-readout'), unit: 'write faults' }),
		writers: liveTable($('writer-table'), writerColumns, {
			key: (w) => `${w.tid} ${w.function}`,
			sort: ['faults', -1],
			empty: 'No write fault was seen yet',
		}),
		areas: liveTable($('area-table'), areaColumns, {
			key: (v) => v.start,
			sort: ['rate', -1],
			empty: 'Nothing was written in the last minute',
		}),
		segments: liveTable($('segment-table'), segmentColumns, {
			key: (s) => s.id,
			sort: ['all', -1],
			empty: 'It attaches none',
		}),
		versions: versionsView({
			place: $('versions'),
			table: $('version-table'),
			note: $('versions-note'),
		}),
	};
	let open = null; // the pid
	let looked = 0;
	let busy = false;

	function takeProcess(process) {
		const every = process.interval_s || 1;
		const pages = (n) => n * pageSize();
		views.areas.update(
			process.vmas.map((v) => ({
				...v,
				wws_bytes: Object.fromEntries(WINDOWS.map((w) => [w, pages(v.wws_pages[w])])),
			})),
		);
		views.segments.update(
			process.segments.map((s) => ({ ...s, own_rate: pages(s.dirty_pages) / every })),
		);
		const all = process.writers.reduce((sum, { faults }) => sum + faults, 0);
		views.writers.update(process.writers.map((w) => ({ ...w, share: w.faults / (all || 1) })));
		setText(
			$('areas-note'),
			`${plural(process.vmas.length, 'area')} written in the last minute`,
		);
	}

	// A job's own, and what else is in the directory that its versions go to.
	function takeVersions({ versions, failures, running }, job, dir) {
		const own = versions.filter((v) => v.job === job || v.dir === dir);
		views.versions.update(
			own,
			failures.filter((f) => f.job === job),
			running?.job === job ? running : null,
		);
	}

	async function readOften(pid) {
		const process = await getJson(`api/processes/${pid}?samples=1`);
		if (open === pid) takeProcess(process);
		return process;
	}

	async function readSlowly(pid, job) {
		const [heat, flame, forecast, versions] = await Promise.all([
			getJson(`api/processes/${pid}/heatmap?rows=${ROWS}`),
			getJson(`api/processes/${pid}/flamegraph`),
			getJson('api/forecast'),
			getJson('api/versions'),
		]);
		if (open !== pid) return;
		views.heat.update(heat);
		setText(
			$('heat-note'),
			heat.rows.length
				? `each row is at most ${bytes(heat.bin_bytes)}; what was not written is left out`
				: '',
		);
		views.flame.update(flame.tree);
		setText($('flame-note'), flameNote(flame));
		const own = forecast.jobs.find((j) => j.job === job);
		views.forecast.update(own && { ...own, mtbf_s: forecast.mtbf_s });
		takeVersions(versions, job, own?.next.dir);
		$('detail').ariaBusy = 'false';
	}

	const flameNote = ({ stacks, samples, seconds }) =>
		stacks
			? `user stacks of ${plural(samples, 'write fault')} in ${Math.round(seconds)} s`
			: 'writing functions; stacks are not there';

	async function look(force) {
		if (open == null || busy || document.hidden) return;
		const now = performance.now() / 1000;
		busy = true;
		const pid = open;
		try {
			const process = await readOften(pid);
			if (force || now - looked >= SLOW) {
				looked = now;
				await readSlowly(pid, process.job);
			}
		} catch (error) {
			if (error instanceof NotFound && open === pid) hasEnded(true);
		} finally {
			busy = false;
		}
		if (pid !== open) look(true);
	}

	const hasEnded = (ended) =>
		setText($('detail-state'), ended ? 'has ended; this is what was seen last' : '');

	return {
		get pid() {
			return open;
		},
		show(process) {
			if (process.pid !== open) {
				open = process.pid;
				setText($('detail-name'), `${process.comm} ${process.pid}`);
				views.flame.reset();
				$('detail').ariaBusy = 'true'; // what is there is of another process
				look(true);
			}
			$('detail').hidden = false;
		},
		take(process) {
			hasEnded(process.ended);
			views.workingSet(process.wws_bytes);
			look(false);
		},
		gone: () => hasEnded(true),
		look,
	};
}
