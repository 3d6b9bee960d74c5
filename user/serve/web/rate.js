// SPDX-License-Identifier: GPL-2.0
// The dirty rate of each process over the last minutes: a line for each.

import { agoAxis, byteAxis, makeChart, roundSpan } from './charts.js';
import { setAttribute, setText } from './dom.js';
import { plural, rate, timeOfDay } from './format.js';
import { SPAN } from './processes.js';
import { seriesColor, seriesDash } from './theme.js';

const SPOKEN_EVERY = 10; // seconds: the text of the chart is not for listening to each second

export function rateChart(place, note) {
	let spoken = 0;
	const chart = makeChart(
		place,
		{
			type: 'line',
			data: { datasets: [] },
			options: {
				parsing: false,
				normalized: true,
				interaction: { mode: 'nearest', axis: 'x', intersect: false },
				elements: {
					point: { radius: 0, hoverRadius: 3, hitRadius: 0 },
					line: { borderJoinStyle: 'round' },
				},
				scales: { x: agoAxis(SPAN), y: byteAxis('/s') },
				plugins: {
					tooltip: {
						itemSort: (a, b) => b.parsed.y - a.parsed.y,
						callbacks: {
							title: ([item]) => (item ? timeOfDay(item.parsed.x) : ''),
							label: ({ dataset, parsed }) => ` ${rate(parsed.y)}  ${dataset.label}`,
						},
					},
				},
			},
		},
		paint,
	);

	function paint({ data }) {
		for (const set of data.datasets) {
			const hue = seriesColor(set.index);
			Object.assign(set, {
				borderColor: hue,
				backgroundColor: hue,
				pointBackgroundColor: hue,
			});
		}
	}

	function describe(processes, time) {
		if (time - spoken < SPOKEN_EVERY) return;
		spoken = time;
		const each = processes.map(
			({ comm, pid, history }) =>
				`${comm} ${pid} ${rate(history.at(-1)?.y)}, at most ${rate(Math.max(...history.map(({ y }) => y)))}`,
		);
		setAttribute(
			place,
			'aria-label',
			processes.length
				? `Line chart of ${plural(processes.length, 'process', 'processes')} over five minutes: ${each.join('; ')}`
				: 'No process is followed',
		);
	}

	function span(processes, time) {
		const age = time - Math.min(time, ...processes.map(({ history }) => history[0]?.x ?? time));
		const seconds = roundSpan(age, SPAN);
		setText(
			note,
			`of each process, the last ${seconds === 60 ? 'minute' : `${seconds / 60} minutes`}`,
		);
		return seconds;
	}

	// Lines are kept by pid, so that what is under the pointer stays.
	function update(processes, openPid, time) {
		const before = new Map(chart.data.datasets.map((set) => [set.pid, set]));
		chart.data.datasets = processes.map((process) =>
			Object.assign(before.get(process.pid) ?? {}, {
				pid: process.pid,
				index: process.color,
				label: `${process.comm} ${process.pid}`,
				data: process.history,
				borderDash: seriesDash(process.color),
				borderWidth: process.pid === openPid ? 2.5 : 1.25,
				order: process.pid === openPid ? 0 : 1,
			}),
		);
		chart.options.scales.x.min = time - span(processes, time);
		chart.options.scales.x.max = time;
		paint(chart);
		chart.update('none');
		describe(processes, time);
		place.dataset.points = String(
			Math.max(0, ...processes.map(({ history }) => history.length)),
		);
	}

	return { update };
}
