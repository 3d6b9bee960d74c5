// SPDX-License-Identifier: GPL-2.0
// What the next checkpoint of a job would cost, and how often to take one.

import { el, setText } from './dom.js';
import { bytes, percent, seconds } from './format.js';

const facts = [
	['size', 'Size', (f) => bytes(f.next.bytes)],
	['pause', 'Pause', (f) => seconds(f.next.pause_s)],
	['interval', 'Take one every', (f) => seconds(f.recommended_interval_s)],
	['overhead', 'Share of time lost', (f) => percent(f.overhead)],
];

const basis = ({ next, mtbf_s, increment_bytes: increment }) =>
	(next.type === 'full'
		? `A full one (${next.basis}), then increments of some ${bytes(increment)}. `
		: `An increment (${next.basis}). `) +
	`The interval is the one that loses least with a failure every ${seconds(mtbf_s)}` +
	(next.measured
		? '.'
		: '; what a checkpoint costs is assumed: none of this job was measured yet.');

export function forecastView(list, note) {
	const values = new Map();
	for (const [id, label] of facts) {
		values.set(id, el('dd', {}, '–'));
		list.append(el('div', {}, el('dt', {}, label), values.get(id)));
	}

	return {
		update(forecast) {
			for (const [id, , text] of facts)
				setText(values.get(id), forecast ? text(forecast) : '–');
			setText(note, forecast ? basis(forecast) : 'No forecast for this job yet.');
		},
	};
}
