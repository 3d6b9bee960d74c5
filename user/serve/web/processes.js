// SPDX-License-Identifier: GPL-2.0
// What is known of each followed process: its last sample, its dirty rate of the last minutes, its colour.

import { getJson } from './api.js';

export const SPAN = 300; // seconds that the charts show

export class Processes {
	#byPid = new Map();
	#colors = 0;

	get all() {
		return [...this.#byPid.values()];
	}

	get(pid) {
		return this.#byPid.get(pid);
	}

	// A sample: those that are not in it any more are gone.
	take(list, time) {
		const there = new Set();
		for (const sample of list) {
			there.add(sample.pid);
			const process = this.#get(sample);
			Object.assign(process, sample);
			if (!process.history.length || process.history.at(-1).x < time)
				process.history.push({ x: time, y: sample.dirty_bytes_per_s });
			process.history = process.history.filter(({ x }) => x >= time - SPAN - 10);
		}
		for (const pid of [...this.#byPid.keys()]) if (!there.has(pid)) this.#byPid.delete(pid);
	}

	// A pid that is used again is another process.
	#get({ pid, since }) {
		let process = this.#byPid.get(pid);
		if (!process || Math.abs(since - process.since) > 0.01) {
			process = { pid, history: [], color: this.#colors++, past: false };
			this.#byPid.set(pid, process);
		}
		return process;
	}

	// What was before this page was opened, or while the connection was lost.
	async readPast(samples) {
		for (const process of this.all.filter(({ past }) => !past)) {
			process.past = true;
			const { history } = await getJson(
				`api/processes/${process.pid}?samples=${samples}`,
			).catch(() => ({}));
			if (!history) continue;
			const last = history.time.at(-1) ?? 0;
			const points = history.time.map((x, i) => ({ x, y: history.dirty_bytes_per_s[i] }));
			process.history = [...points, ...process.history.filter(({ x }) => x > last)];
		}
	}

	forgetPast() {
		for (const process of this.all) process.past = false;
	}
}
