// SPDX-License-Identifier: GPL-2.0
// Address x time: how many pages of each piece of memory were written when. Rows are those of the daemon; what was not
// written is left out, and a gap between two areas says so.

import { crispCanvas, el, setAttribute, setText } from './dom.js';
import { bytes, count, plural, timeOfDay } from './format.js';
import { agoLabel, agoStep, roundSpan } from './charts.js';
import { color, fontFamily, onThemeChange } from './theme.js';

const GAP = 3;
const LABEL = 14; // pixels of a line of text
const SCALE = 24; // pixels of the time axis
const NARROW = 520;
const STEPS = 64;

// [r, g, b] of #rrggbb
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// STEPS colours from heat-0 to heat-3.
function ramp() {
	const stops = [0, 1, 2, 3].map((i) => rgb(color(`heat-${i}`)));
	return Array.from({ length: STEPS }, (_, i) => {
		const at = (i / (STEPS - 1)) * (stops.length - 1);
		const low = Math.min(Math.floor(at), stops.length - 2);
		const mix = stops[low].map((from, c) =>
			Math.round(from + (stops[low + 1][c] - from) * (at - low)),
		);
		return `rgb(${mix})`;
	});
}

const shorten = (name) =>
	(name.startsWith('/') ? name.slice(name.lastIndexOf('/') + 1) : name) || '[anon]';

export function heatmap(place, { readout, scale, pageSize }) {
	const canvas = place.querySelector('canvas');
	let map = null;
	let box = null; // where the cells are: left, top, width, height, row tops
	let cursor = null; // { column, row }
	let colors = ramp();
	const redraw = crispCanvas(canvas, draw);

	onThemeChange(() => {
		colors = ramp();
		redraw();
	});
	place.addEventListener('pointermove', (event) => moveTo(cellAt(event)));
	place.addEventListener('pointerleave', () => moveTo(null));
	place.addEventListener('blur', () => moveTo(null));
	place.addEventListener('keydown', onKey);

	const rows = () => map?.rows.length ?? 0;

	// Heights: each row the same, but an area never less than its label needs.
	function layout(width, height) {
		const left = width < NARROW ? 100 : 168;
		const areas = map.areas;
		const room = height - SCALE - GAP * (areas.length + 1);
		const least = Math.min(LABEL, room / areas.length);
		let rest = room;
		let share = rows();
		for (const { rows: n } of [...areas].sort((a, b) => a.rows - b.rows))
			if ((n * rest) / share < least) {
				rest -= least;
				share -= n;
			}
		const each = share ? rest / share : 0;
		const tops = [];
		let y = GAP;
		for (const area of areas) {
			const high = Math.max(least, area.rows * each);
			for (let r = 0; r < area.rows; r++)
				tops.push(rowTop(area.first_row + r, r, y, high / area.rows));
			y += high + GAP;
		}
		const [first, last] = [map.time[0], map.time.at(-1)];
		const seen = last - first + map.column_s;
		const span = roundSpan(seen, seen);
		return { left, width: width - left - 8, bottom: y, tops, start: last - span, span };
	}

	// A hairline above a row that does not follow on the one before.
	function rowTop(row, within, top, high) {
		const apart = within && high > 3 && map.rows[row].start !== map.rows[row - 1].end ? 1 : 0;
		const y = Math.round(top + within * high) + apart; // whole pixels: no seams
		return { y, height: Math.max(1, Math.round(top + (within + 1) * high) - y) };
	}

	const columnX = (column) => {
		const before = column ? map.time[column - 1] : 0;
		const from = Math.max(before, map.time[column] - (column ? 2 : 1) * map.column_s);
		return [from, map.time[column]].map(
			(t) => box.left + ((t - box.start) / box.span) * box.width,
		);
	};

	function shade(pages) {
		if (!pages) return null;
		const strength = Math.sqrt(pages / map.max);
		return colors[Math.max(6, Math.round(strength * (STEPS - 1)))];
	}

	function draw(context, width, height) {
		context.font = `${width < NARROW ? 11 : 12}px ${fontFamily()}`;
		if (!rows() || !map.time.length) {
			context.fillStyle = color('muted');
			context.fillText('Nothing was written yet.', 16, 28);
			box = null;
			return;
		}
		box = layout(width, height);
		drawAreas(context);
		drawCells(context);
		drawTimes(context, height);
		drawCursor(context);
	}

	function drawAreas(context) {
		context.textBaseline = 'middle';
		for (const area of map.areas) {
			const top = box.tops[area.first_row];
			const end = box.tops[area.first_row + area.rows - 1];
			const high = end.y + end.height - top.y;
			context.fillStyle = colors[0];
			context.fillRect(box.left, top.y, box.width, high);
			context.fillStyle = color('ink');
			fitText(
				context,
				shorten(area.name),
				8,
				top.y + Math.min(high / 2, LABEL / 2 + 1),
				box.left - 16,
				high,
			);
			drawAddresses(context, area, top.y + LABEL, end.y + end.height);
		}
	}

	// In a tall area, where some of its rows begin: first of all those behind a gap.
	function drawAddresses(context, area, top, bottom) {
		const address = (row) => map.rows[row].start.slice(canvas.clientWidth < NARROW ? 2 : 0);
		context.fillStyle = color('muted');
		let free = top;
		for (let row = area.first_row; row < area.first_row + area.rows; row++) {
			const { y } = box.tops[row];
			const first = row === area.first_row;
			const behindGap = !first && map.rows[row].start !== map.rows[row - 1].end;
			const at = Math.max(y + LABEL / 2, first ? top + LABEL / 2 : 0);
			if (
				at - LABEL / 2 < free ||
				at + LABEL > bottom ||
				!(first || behindGap || y > free + 4 * LABEL)
			)
				continue;
			fitText(context, address(row), 8, at, box.left - 16, LABEL);
			free = at + LABEL / 2 + LABEL * (first ? 1 : 2);
		}
	}

	function fitText(context, text, x, y, room, high) {
		if (high < 9) return;
		let shown = text;
		while (shown.length > 3 && context.measureText(shown).width > room)
			shown = `${shown.slice(0, -2).trimEnd()}…`;
		context.fillText(shown, x, y);
	}

	function drawCells(context) {
		map.cells.forEach((cells, column) => {
			const [from, to] = columnX(column);
			const [x, wide] = [Math.floor(from), Math.max(1, Math.ceil(to) - Math.floor(from))];
			cells.forEach((pages, row) => {
				const fill = shade(pages);
				if (!fill) return;
				const { y, height } = box.tops[row];
				context.fillStyle = fill;
				context.fillRect(x, y, wide, height);
			});
		});
	}

	function drawTimes(context, height) {
		const y = height - SCALE / 2;
		context.fillStyle = color('muted');
		context.textBaseline = 'middle';
		const step = agoStep(box.span, box.width);
		for (let ago = 0; ago <= box.span; ago += step) {
			const x = box.left + (1 - ago / box.span) * box.width;
			const text = agoLabel(ago, step);
			const wide = context.measureText(text).width;
			if (x - wide / 2 < box.left) break;
			context.fillText(text, Math.min(x - wide / 2, box.left + box.width - wide), y);
		}
	}

	function drawCursor(context) {
		if (!cursor) return;
		const [from, to] = columnX(cursor.column);
		const { y, height } = box.tops[cursor.row];
		const [left, wide] = [Math.floor(from), Math.max(2, Math.ceil(to) - Math.floor(from))];
		for (const [width, name] of [
			[5, 'panel'],
			[2, 'ink'],
		]) {
			context.strokeStyle = color(name);
			context.lineWidth = width;
			context.strokeRect(left - 1, y - 1, wide + 2, height + 2);
		}
	}

	function cellAt({ clientX, clientY }) {
		if (!box) return null;
		const at = canvas.getBoundingClientRect();
		const [x, y] = [clientX - at.left, clientY - at.top];
		const row = box.tops.findIndex((top) => y >= top.y && y < top.y + top.height);
		const column = map.time.findIndex((_, c) => {
			const [from, to] = columnX(c);
			return x >= from && x < to;
		});
		return row < 0 || column < 0 ? null : { row, column };
	}

	function moveTo(cell) {
		cursor = cell;
		say();
		redraw();
	}

	function say() {
		if (!cursor) return setText(readout, '');
		const { start, end, name } = map.rows[cursor.row];
		const pages = map.cells[cursor.column][cursor.row];
		setText(
			readout,
			`${timeOfDay(map.time[cursor.column])}  ${shorten(name)} ${start}–${end}: ` +
				`${plural(pages, 'page')} written (${bytes(pages * pageSize())})`,
		);
	}

	function onKey(event) {
		const steps = {
			ArrowLeft: [-1, 0],
			ArrowRight: [1, 0],
			ArrowUp: [0, -1],
			ArrowDown: [0, 1],
		};
		const step = steps[event.key];
		if (!step || !box) return;
		event.preventDefault();
		const at = cursor ?? { column: map.time.length - 1, row: 0 };
		const within = (value, n) => Math.max(0, Math.min(n - 1, value));
		moveTo(
			cursor
				? {
						column: within(at.column + step[0], map.time.length),
						row: within(at.row + step[1], rows()),
					}
				: at,
		);
	}

	function update(next) {
		map = next;
		if (map?.time.length) {
			const spans =
				map.time.length > 1 ? (map.time.at(-1) - map.time[0]) / (map.time.length - 1) : 0;
			map.column_s = Math.max(spans, map.interval_s);
			map.max ||= 1;
		}
		if (cursor && (cursor.row >= rows() || cursor.column >= (map?.time.length ?? 0)))
			cursor = null;
		say();
		const least = el('span', {}, '1 page');
		const most = el('span', {}, map?.max > 1 ? `${count(map.max)} pages` : '');
		scale.replaceChildren(least, most);
		place.dataset.cells = String(map?.cells.flat().filter(Boolean).length ?? 0);
		setAttribute(
			place,
			'aria-label',
			map
				? `Writes in ${plural(map.areas.length, 'memory area')}, ` +
						`${plural(map.time.length, 'interval')}: ${map.areas
							.map(({ name }) => shorten(name))
							.slice(0, 8)
							.join(', ')}`
				: 'No data',
		);
		redraw();
	}

	return { update };
}
