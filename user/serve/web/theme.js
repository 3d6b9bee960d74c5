// SPDX-License-Identifier: GPL-2.0
// Colours for what is drawn on canvases: those of style.css, which knows dark, light and contrast.

const queries = [
	'(prefers-color-scheme: dark)',
	'(prefers-contrast: more)',
	'(prefers-contrast: less)',
];
const listeners = new Set();

let cache = new Map();

for (const query of queries)
	window.matchMedia(query).addEventListener('change', () => {
		cache = new Map();
		for (const listener of listeners) listener();
	});

export const onThemeChange = (listener) => listeners.add(listener);

// color('accent') is --accent of the page.
export function color(name) {
	if (!cache.has(name))
		cache.set(
			name,
			getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(),
		);
	return cache.get(name);
}

export const SERIES = 8;

// A process keeps its colour while it is there; beyond SERIES they are used again, with another dash.
export const seriesColor = (index) => color(`series-${(index % SERIES) + 1}`);
const again = (index) => Math.floor(index / SERIES) % 3;
export const seriesDash = (index) => [[], [5, 3], [2, 2]][again(index)];
export const seriesStyle = (index) => ['solid', 'dashed', 'dotted'][again(index)];

export const fontFamily = () => getComputedStyle(document.body).fontFamily;

export const stillness = () => window.matchMedia('(prefers-reduced-motion: reduce)').matches;
