// SPDX-License-Identifier: GPL-2.0
// Making and changing elements. What comes from outside is only ever set as text.

export const $ = (id) => document.getElementById(id);

// el('td', { class: 'num', title: '...' }, 'text', node...)
export function el(tag, attributes = {}, ...children) {
	const node = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
		else if (value === true) node.setAttribute(name, '');
		else if (value !== false && value != null) node.setAttribute(name, value);
	}
	node.append(...children);
	return node;
}

// Writing the same text again would end a selection, and make screen readers speak.
export function setText(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
	if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Do it once in the next frame, however often it is asked for; never while the page is hidden.
export function onFrame(draw) {
	let asked = false;
	return () => {
		if (asked) return;
		asked = true;
		requestAnimationFrame(() => {
			asked = false;
			draw();
		});
	};
}

// A canvas as sharp as the screen, kept at the size of its box; draw(context, width, height) in CSS pixels.
export function crispCanvas(canvas, draw) {
	const redraw = onFrame(() => {
		const { clientWidth: width, clientHeight: height } = canvas;
		if (!width || !height) return;
		const scale = window.devicePixelRatio || 1;
		const pixels = [Math.round(width * scale), Math.round(height * scale)];
		if (canvas.width !== pixels[0] || canvas.height !== pixels[1])
			[canvas.width, canvas.height] = pixels;
		const context = canvas.getContext('2d');
		context.setTransform(scale, 0, 0, scale, 0, 0);
		context.clearRect(0, 0, width, height);
		draw(context, width, height);
	});
	new ResizeObserver(redraw).observe(canvas);
	return redraw;
}
