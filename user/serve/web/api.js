// SPDX-License-Identifier: GPL-2.0
// The daemon's HTTP interface (docs/api.md): JSON, the live events, and the token that both may need.

import { readEvents } from './sse.js';

const KEY = 'icp-bpf-token';
const SILENCE = 40_000; // ms; a comment comes every 15 s

export class NeedsToken extends Error {}
export class NotFound extends Error {}

export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const dropToken = () => sessionStorage.removeItem(KEY);
export const hasToken = () => sessionStorage.getItem(KEY) != null;

async function get(path, signal) {
	const token = sessionStorage.getItem(KEY);
	const response = await fetch(path, {
		headers: token == null ? {} : { Authorization: `Bearer ${token}` },
		cache: 'no-store',
		credentials: 'omit',
		signal,
	});
	if (response.ok) return response;
	const { error } = await response.json().catch(() => ({}));
	const Kind = { 401: NeedsToken, 404: NotFound }[response.status] ?? Error;
	throw new Kind(error ?? `${path}: ${response.status}`);
}

export async function getJson(path) {
	return (await get(path, AbortSignal.timeout(SILENCE))).json();
}

// Calls on(name, data) for each event, until the connection ends; throws when it can't be had, or is silent for too long.
export async function follow(on) {
	const abort = new AbortController();
	let timer;
	const alive = () => {
		clearTimeout(timer);
		timer = setTimeout(() => abort.abort(), SILENCE);
	};
	alive();
	try {
		const { body } = await get('api/events', abort.signal);
		const watched = new TransformStream({
			transform(chunk, to) {
				alive();
				to.enqueue(chunk);
			},
		});
		await readEvents(body.pipeThrough(watched), ({ event, data }) =>
			on(event, JSON.parse(data)),
		);
	} finally {
		clearTimeout(timer);
		abort.abort();
	}
}
