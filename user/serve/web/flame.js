// SPDX-License-Identifier: GPL-2.0
// A flame graph of { name, value, children }, root on top so that nothing jumps when stacks grow. A frame is an
// element with a key of its path: it stays the same one, with its focus, while the numbers change.
//
// Keys: arrows move between frames, Enter or a click shows one in full width, Escape goes back.

import { el, setAttribute, setText } from './dom.js';
import { count, percent } from './format.js';

const ROW = 20;
const NARROWEST = 1.5; // pixels; what is narrower is not drawn
const PATH = '\u0000';

// The same name always has the same tint.
function tint(name) {
	let hash = 0;
	for (let i = 0; i < name.length; i++) hash = (hash * 31 + name.charCodeAt(i)) | 0;
	return Math.abs(hash) % 6;
}

export function flameGraph(root, { readout, unit }) {
	let tree = null;
	let zoom = ''; // the path of the frame in full width; '' is the root
	let tallest = 1;
	let current = ''; // the path of the frame that the keyboard is at
	const frames = new Map(); // path: { node, frame, parent, depth }

	root.setAttribute('role', 'tree');
	root.addEventListener('keydown', onKey);
	new ResizeObserver(() => draw()).observe(root);

	const byValue = (frame) => [...(frame.children ?? [])].sort((a, b) => b.value - a.value);

	// The chain of frames that zoom names, as far as it still exists.
	function zoomChain() {
		const chain = [{ frame: tree, path: '' }];
		for (const name of zoom.split(PATH).slice(1)) {
			const last = chain.at(-1);
			const next = last.frame.children?.find((child) => child.name === name);
			if (!next) break;
			chain.push({ frame: next, path: last.path + PATH + name });
		}
		return chain;
	}

	function* layout(width) {
		const chain = zoomChain();
		for (const [depth, { frame, path }] of chain.entries())
			yield {
				frame,
				path,
				parent: chain[depth - 1]?.path,
				depth,
				x: 0,
				width,
				outer: depth < chain.length - 1,
			};
		const top = chain.at(-1);
		yield* children(top.frame, top.path, chain.length, 0, width);
	}

	function* children(parent, path, depth, left, width) {
		let x = left;
		for (const frame of byValue(parent)) {
			const wide = (width * frame.value) / (parent.value || 1);
			if (wide < NARROWEST) return;
			const own = path + PATH + frame.name;
			yield { frame, path: own, parent: path, depth, x, width: wide };
			yield* children(frame, own, depth + 1, x, wide);
			x += wide;
		}
	}

	const describe = (frame) =>
		`${frame.name}: ${count(frame.value)} ${unit}, ${percent(frame.value / (tree.value || 1))}`;

	function makeFrame(path) {
		const node = el('div', { role: 'treeitem', class: 'frame', tabindex: -1 });
		node.addEventListener('click', () => zoomTo(path));
		node.addEventListener('pointerenter', () =>
			setText(readout, describe(frames.get(path).frame)),
		);
		node.addEventListener('focus', () => {
			current = path;
			setText(readout, describe(frames.get(path).frame));
		});
		root.append(node);
		return node;
	}

	function place({ frame, path, parent, depth, x, width, outer }) {
		if (!frames.has(path)) frames.set(path, { node: makeFrame(path) });
		const entry = Object.assign(frames.get(path), { frame, parent, depth });
		const { node } = entry;
		Object.assign(node.style, {
			left: `${x}px`,
			top: `${depth * ROW}px`,
			width: `${Math.max(width - 1, 1)}px`,
		});
		node.className = `frame tint-${depth ? tint(frame.name) : 'root'}${outer ? ' outer' : ''}`;
		setText(node, width > 24 ? frame.name.replace(/ \[.*\]$/, '') : ''); // the module is in the readout
		setAttribute(node, 'aria-level', String(depth + 1));
		setAttribute(node, 'aria-label', describe(frame));
	}

	function draw() {
		const width = root.clientWidth;
		const gone = new Set(frames.keys());
		let depth = 0;
		if (tree?.value && width)
			for (const item of layout(width)) {
				place(item);
				gone.delete(item.path);
				depth = Math.max(depth, item.depth);
			}
		const lost = [...gone].some((path) => frames.get(path).node === document.activeElement);
		for (const path of gone) {
			frames.get(path).node.remove();
			frames.delete(path);
		}
		tallest = Math.max(tallest, depth + 1); // it does not shrink: what is below stays in its place
		root.style.setProperty('--rows', depth + 1);
		root.style.setProperty('--tallest', tallest);
		while (current && !frames.has(current))
			current = current.slice(0, current.lastIndexOf(PATH));
		for (const [path, { node }] of frames) node.tabIndex = path === current ? 0 : -1;
		if (lost) focus(current);
	}

	function zoomTo(path) {
		zoom = path === zoom ? (frames.get(path)?.parent ?? '') : path;
		draw();
		focus(zoom);
	}

	function focus(path) {
		if (!frames.has(path)) return;
		frames.get(current)?.node.setAttribute('tabindex', -1);
		current = path;
		frames.get(path).node.tabIndex = 0;
		frames.get(path).node.focus();
	}

	function onKey(event) {
		const here = frames.get(current);
		if (!here) return;
		const among = (parent) =>
			[...frames].filter(([, entry]) => entry.parent === parent).map(([path]) => path);
		const beside = among(here.parent);
		const moves = {
			ArrowDown: () => among(current)[0],
			ArrowUp: () => here.parent,
			ArrowRight: () => beside[beside.indexOf(current) + 1],
			ArrowLeft: () => beside[beside.indexOf(current) - 1],
			Home: () => '',
		};
		if (moves[event.key]) focus(moves[event.key]() ?? current);
		else if (event.key === 'Enter' || event.key === ' ') zoomTo(current);
		else if (event.key === 'Escape') zoomTo('');
		else return;
		event.preventDefault();
	}

	return {
		update(next) {
			tree = next;
			draw();
		},
		reset() {
			[zoom, current, tallest] = ['', '', 1];
			setText(readout, '');
		},
	};
}
