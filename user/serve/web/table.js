// SPDX-License-Identifier: GPL-2.0
// A live table that can be sorted: rows are kept by key and changed in place, so focus and selection stay. While the
// pointer is over it, or the focus in it, rows keep their order: nothing moves away from under a click.
//
//   const t = liveTable(tableElement, columns, { key, sort: [column, direction], onOpen, selected })
//   t.update(rows)
//
// A column is { id, label, title, kind, value(row), text(row), fill(cell, row) }: value is what is sorted by, text what
// is shown, fill makes more than text. kind: 'num', 'text' or 'code'. The first column heads its row.

import { el, setAttribute, setText } from './dom.js';

// What is not known comes last in both directions.
function compare(a, b, direction = 1) {
	if (a == null || b == null) return (a == null) - (b == null);
	return direction * (typeof a === 'string' ? a.localeCompare(b, 'en') : a - b);
}

export function liveTable(
	root,
	columns,
	{ key, sort, onOpen, openLabel, isOpen = () => false, empty = 'Nothing yet' },
) {
	let [sortId, direction] = sort;
	let rows = [];
	const shown = new Map(); // key: { tr, cells, row }
	const heads = columns.map((column) => head(column));
	const body = el('tbody');
	const nothing = el('tr', { class: 'empty' }, el('td', { colspan: columns.length }, empty));
	root.append(el('thead', {}, el('tr', {}, ...heads)), body);
	markSort();

	function head(column) {
		const button = el(
			'button',
			{ type: 'button', title: column.title, onclick: () => sortBy(column) },
			column.label,
		);
		return el(
			'th',
			{
				scope: 'col',
				class: `${column.kind} ${column.class ?? ''}`,
				'data-column': column.id,
			},
			button,
		);
	}

	function sortBy(column) {
		if (sortId === column.id) direction = -direction;
		else [sortId, direction] = [column.id, column.kind === 'num' ? -1 : 1];
		markSort();
		arrange(true);
	}

	function markSort() {
		columns.forEach((column, i) => {
			const order =
				column.id === sortId ? (direction < 0 ? 'descending' : 'ascending') : 'none';
			setAttribute(heads[i], 'aria-sort', order);
		});
	}

	function makeRow(row) {
		const cells = columns.map((column, i) =>
			el(i ? 'td' : 'th', {
				class: `${column.kind} ${column.class ?? ''}`,
				scope: i ? null : 'row',
			}),
		);
		const entry = { tr: el('tr', {}, ...cells), cells, row };
		if (onOpen) {
			entry.button = el('button', {
				type: 'button',
				class: 'open',
				onclick: () => onOpen(entry.row),
			});
			cells[0].append(entry.button);
			entry.tr.addEventListener(
				'click',
				(event) => event.target.closest('button') || onOpen(entry.row),
			);
		}
		return entry;
	}

	function fillRow(entry, row) {
		entry.row = row;
		columns.forEach((column, i) => {
			const place = i === 0 && entry.button ? entry.button : entry.cells[i];
			if (column.fill) column.fill(place, row);
			else setText(place, column.text(row));
		});
		if (!onOpen) return;
		entry.tr.classList.toggle('open', isOpen(row));
		setAttribute(entry.button, 'aria-pressed', String(isOpen(row)));
		setAttribute(entry.button, 'aria-label', openLabel(row));
	}

	function arrange(asked) {
		const column = columns.find(({ id }) => id === sortId);
		const held = !asked && (body.matches(':hover') || body.contains(document.activeElement));
		let order = [...shown.values()];
		if (!held)
			order.sort(
				(a, b) =>
					compare(column.value(a.row), column.value(b.row), direction) ||
					compare(key(a.row), key(b.row)),
			);
		let at = body.firstElementChild;
		for (const { tr } of order) {
			if (tr === at) at = at.nextElementSibling;
			else body.insertBefore(tr, at);
		}
	}

	function update(next = rows) {
		rows = next;
		const gone = new Set(shown.keys());
		for (const row of rows) {
			const k = key(row);
			gone.delete(k);
			if (!shown.has(k)) shown.set(k, makeRow(row));
			fillRow(shown.get(k), row);
		}
		for (const k of gone) {
			shown.get(k).tr.remove();
			shown.delete(k);
		}
		if (rows.length) nothing.remove();
		arrange(false);
		if (!rows.length) body.append(nothing);
	}

	update([]);
	return { update };
}
