// SPDX-License-Identifier: GPL-2.0
// Keeps the live events coming: says how it stands, connects again, asks for the token.

import { dropToken, follow, hasToken, NeedsToken, setToken } from './api.js';
import { $, setText } from './dom.js';
import { timeOfDay } from './format.js';

const FIRST_WAIT = 1;
const LONGEST_WAIT = 15; // seconds

export function show(state, text) {
	$('connection').dataset.state = state;
	setText($('connection-text'), text);
	document.body.classList.toggle('stale', state === 'lost');
}

export const showLive = (time) => show('live', `live, ${timeOfDay(time)}`);

function askForToken() {
	const dialog = $('token-dialog');
	setText($('token-wrong'), hasToken() ? 'The daemon did not take this token.' : '');
	dropToken();
	show('token', 'a token is needed');
	return new Promise((done) => {
		const form = dialog.querySelector('form');
		form.onsubmit = () => {
			setToken($('token').value.trim());
			form.reset();
			done();
		};
		dialog.oncancel = (event) => event.preventDefault(); // there is nothing to see without it
		if (!dialog.open) dialog.showModal();
	});
}

async function countDown(wait) {
	for (let left = wait; left > 0; left--) {
		show('lost', `connection lost, again in ${left} s`);
		await new Promise((done) => setTimeout(done, 1000));
	}
	show('lost', 'connection lost, connecting');
}

// Never returns. on(event, data): docs/api.md, /api/events.
export async function stayConnected(on) {
	let wait = FIRST_WAIT;
	for (;;) {
		try {
			await follow((event, data) => {
				wait = FIRST_WAIT;
				on(event, data);
			});
		} catch (error) {
			if (error instanceof NeedsToken) {
				await askForToken();
				continue;
			}
		}
		await countDown(wait);
		wait = Math.min(wait * 2, LONGEST_WAIT);
	}
}
