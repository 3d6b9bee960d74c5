// SPDX-License-Identifier: GPL-2.0
// What all charts share: the manner of their axes and tips. Chart is Chart.js 3, a script of its own (chart.min.js).

import { bytes } from './format.js';
import { color, fontFamily, onThemeChange, stillness } from './theme.js';

const charts = new Set();

function manner() {
	const { defaults } = window.Chart;
	defaults.font = { family: fontFamily(), size: 12 };
	defaults.color = color('muted');
	defaults.borderColor = color('grid');
	defaults.animation = false;
	defaults.maintainAspectRatio = false;
	defaults.transitions.active.animation.duration = stillness() ? 0 : 120;
	defaults.plugins.legend.display = false;
	Object.assign(defaults.plugins.tooltip, {
		backgroundColor: color('ink'),
		titleColor: color('panel'),
		bodyColor: color('panel'),
		titleFont: { weight: '600' },
		padding: 8,
		cornerRadius: 4,
		caretSize: 0,
		boxWidth: 10,
		boxHeight: 2,
		boxPadding: 6,
	});
}

// paint(chart) sets the colours of its own that depend on the theme.
export function makeChart(place, config, paint) {
	manner();
	const chart = new window.Chart(place.querySelector('canvas'), config);
	charts.add({ chart, paint });
	paint(chart);
	chart.update('none');
	return chart;
}

onThemeChange(() => {
	manner();
	for (const { chart, paint } of charts) {
		for (const scale of Object.values(chart.options.scales)) {
			scale.ticks.color = color('muted');
			if (scale.grid.display !== false) scale.grid.color = color('grid');
		}
		Object.assign(chart.options.plugins.tooltip, window.Chart.defaults.plugins.tooltip);
		paint(chart);
		chart.update('none');
	}
});

// 1, 2, 5, 10.. of a unit of 1024: the distance of about n lines below max.
export function byteStep(max, n = 4) {
	if (!(max > 0)) return 256;
	const unit = 1024 ** Math.max(0, Math.floor(Math.log(max / n) / Math.log(1024)));
	for (const base of [1, 2, 5, 10, 20, 50, 100, 200, 500])
		if (base * unit * n >= max) return base * unit;
	return 1024 * unit;
}

// A line's label: 20 MiB, not 20.0 MiB.
export const roundLabel = (text) => text.replace(/\.0+(?= )/, '');

// From zero to a round number above all, always as wide: nothing moves sideways when the numbers grow.
export function byteAxis(suffix = '') {
	return {
		axis: 'y',
		bounds: 'data',
		beginAtZero: true,
		grid: { drawBorder: false, drawTicks: false },
		ticks: {
			padding: 8,
			callback: (value) => (value ? roundLabel(bytes(value)) + suffix : '0'),
		},
		afterDataLimits(axis) {
			axis.step = byteStep(Math.max(axis.max, 4096));
			axis.max = Math.max(1, Math.ceil(axis.max / axis.step)) * axis.step;
			axis.min = 0;
		},
		afterBuildTicks(axis) {
			const n = Math.round(axis.max / axis.step);
			axis.ticks = Array.from({ length: n + 1 }, (_, i) => ({ value: i * axis.step }));
		},
		afterFit(axis) {
			axis.width = 76;
		},
	};
}

// The time before now, which is axis.max.
export const agoAxis = (span) => ({
	type: 'linear',
	min: -span,
	max: 0,
	grid: { drawBorder: false, tickLength: 4 },
	ticks: { align: 'inner', maxRotation: 0, callback: (_, i, ticks) => ticks[i].label },
	afterBuildTicks(axis) {
		const within = axis.max - axis.min;
		const step = agoStep(within, axis.width);
		axis.ticks = [];
		for (let ago = within - (within % step); ago >= 0; ago -= step)
			axis.ticks.push({ value: axis.max - ago, label: agoLabel(ago, step) });
	},
});

// What an axis shows that has so many seconds to show: it changes a few times only.
export const roundSpan = (seconds, most) => [60, 120].find((span) => seconds < span - 1) ?? most;

// The distance of the marks of a time axis of so many seconds and pixels.
export const agoStep = (span, width) =>
	[1, 2, 5, 10, 20, 60, 120, 300, 600, 3600].find(
		(step) => (step / span) * width > 64 + width / 16,
	) ?? 7200;

export function agoLabel(seconds, step) {
	if (!seconds) return 'now';
	return step % 60 ? `−${seconds} s` : `−${seconds / 60} min`;
}
