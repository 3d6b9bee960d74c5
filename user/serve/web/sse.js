// SPDX-License-Identifier: GPL-2.0
// Server-sent events over fetch: EventSource can not send the Authorization header that a token needs.

// Calls on({ event, data, id }) for each event of a text/event-stream, until it ends.
export async function readEvents(body, on) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = '';
	let event = { event: 'message', data: '', id: null };
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
		rest = lines.pop();
		for (const line of lines) {
			if (line) {
				takeLine(event, line);
			} else {
				if (event.data) on({ ...event, data: event.data.slice(0, -1) });
				event = { event: 'message', data: '', id: event.id };
			}
		}
	}
}

function takeLine(event, line) {
	const colon = line.indexOf(':');
	if (colon === 0) return; // a comment, which keeps the connection open
	const name = colon < 0 ? line : line.slice(0, colon);
	const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
	if (name === 'data') event.data += `${value}\n`;
	else if (name === 'event' || name === 'id') event[name] = value;
}
