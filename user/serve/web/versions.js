// SPDX-License-Identifier: GPL-2.0
// The versions that were cut of a job: their size as bars and their pause as points over time, and a table.

import { byteAxis, makeChart, roundLabel } from './charts.js';
import { versionColumns } from './columns.js';
import { setAttribute, setText } from './dom.js';
import { bytes, plural, seconds, timeOfDay } from './format.js';
import { liveTable } from './table.js';
import { color } from './theme.js';

const NEWEST = 60; // in the chart; the table has all

const pauseAxis = {
	axis: 'y',
	position: 'right',
	beginAtZero: true,
	grid: { display: false, drawBorder: false },
	ticks: {
		padding: 8,
		maxTicksLimit: 5,
		callback: (value) => (value ? roundLabel(seconds(value)) : '0'),
	},
	afterFit(axis) {
		axis.width = 64;
	},
};

export function versionsView({ place, table, note }) {
	const rows = liveTable(table, versionColumns, {
		key: (v) => `${v.dir} ${v.version}`,
		sort: ['time', -1],
		empty: 'No version of this job was cut while the daemon runs',
	});
	let newest = []; // those in the chart
	const chart = makeChart(
		place,
		{
			type: 'bar',
			data: {
				labels: [],
				datasets: [
					{
						label: 'pause',
						type: 'line',
						yAxisID: 'pause',
						data: [],
						showLine: false,
						pointStyle: 'rectRot',
						radius: 5,
						hoverRadius: 6,
					},
					{ label: 'size', yAxisID: 'size', data: [], maxBarThickness: 18 },
				],
			},
			options: {
				interaction: { mode: 'index', intersect: false },
				scales: {
					x: {
						grid: { display: false, drawBorder: false },
						ticks: { maxRotation: 0, autoSkipPadding: 16 },
					},
					size: { ...byteAxis(), position: 'left' },
					pause: pauseAxis,
				},
				plugins: {
					tooltip: {
						callbacks: {
							title: ([item]) => (item ? title(newest[item.dataIndex]) : ''),
							label: ({ dataset, parsed }) =>
								` ${dataset.label} ${dataset.label === 'size' ? bytes(parsed.y) : seconds(parsed.y)}`,
						},
					},
				},
			},
		},
		paint,
	);

	const title = (v) => `version ${v.version}, ${v.type}, ${timeOfDay(v.time)}`;

	function paint({ data }) {
		const [pause, size] = data.datasets;
		Object.assign(pause, {
			borderColor: color('panel'),
			backgroundColor: color('ink'),
			pointBorderColor: color('panel'),
			pointBackgroundColor: color('ink'),
		});
		size.backgroundColor = newest.map(({ type }) =>
			color(type === 'full' ? 'line-strong' : 'accent'),
		);
	}

	function update(versions, failures, running) {
		rows.update(versions);
		newest = versions.slice(-NEWEST);
		chart.data.labels = newest.map(({ version, time }) => [String(version), timeOfDay(time)]);
		chart.data.datasets[0].data = newest.map(({ pause_s }) => pause_s);
		chart.data.datasets[1].data = newest.map((v) => v.bytes);
		paint(chart);
		chart.update('none');
		const last = versions.at(-1);
		setAttribute(
			place,
			'aria-label',
			last
				? `${plural(versions.length, 'version')}; the last one is ${title(last)}, ` +
						`${bytes(last.bytes)}, pause ${seconds(last.pause_s)}`
				: 'No versions',
		);
		place.hidden = !last;
		setText(note, say(last, failures, running));
	}

	function say(last, failures, running) {
		if (running) return `one is being cut: ${running.phase}`;
		const failed = failures.at(-1);
		if (failed && failed.time > (last?.time ?? 0))
			return `the last one failed at ${timeOfDay(failed.time)}: ${failed.error}`;
		return last ? 'size as bars (full ones grey), pause as diamonds' : '';
	}

	return { update };
}
