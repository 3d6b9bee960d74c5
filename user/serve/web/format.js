// SPDX-License-Identifier: GPL-2.0
// Numbers and times as people read them. null and undefined are "–": not known.

export const UNKNOWN = '–';

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(n) {
	if (n == null) return UNKNOWN;
	let unit = 0;
	while (n >= 999.5 && unit < BYTES.length - 1) {
		n /= 1024;
		unit++;
	}
	const digits = unit && n < 9.995 ? 2 : unit && n < 99.95 ? 1 : 0;
	return `${n.toFixed(n ? digits : 0)} ${BYTES[unit]}`;
}

export const rate = (n) => (n == null ? UNKNOWN : `${bytes(n)}/s`);

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export const count = (n) => (n == null ? UNKNOWN : grouped.format(n));
export const perSecond = (n) => (n == null ? UNKNOWN : `${grouped.format(n)}/s`);

export const percent = (share) =>
	share == null ? UNKNOWN : `${(share * 100).toFixed(share && share < 0.001 ? 3 : 1)} %`;

export function seconds(s) {
	if (s == null) return UNKNOWN;
	if (s < 0.9995) return `${(s * 1000).toFixed(s < 0.01 ? 2 : s < 0.1 ? 1 : 0)} ms`;
	if (s < 59.5) return `${s.toFixed(s < 9.95 ? 1 : 0)} s`;
	const minutes = Math.round(s / 60);
	if (minutes < 60) return `${minutes} min`;
	const hours = Math.floor(minutes / 60);
	return hours < 48
		? `${hours} h${minutes % 60 ? ` ${minutes % 60} min` : ''}`
		: `${Math.round(hours / 24)} days`;
}

const clock = new Intl.DateTimeFormat('en-GB', {
	hour: '2-digit',
	minute: '2-digit',
	second: '2-digit',
});
const day = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit' });

// Both take seconds since 1970.
export const timeOfDay = (t) => (t == null ? UNKNOWN : clock.format(t * 1000));
export const date = (t) => (t == null ? UNKNOWN : day.format(t * 1000));

export const ago = (s) => (s < 0.5 ? 'now' : `${seconds(s)} ago`);

export const plural = (n, word, words = `${word}s`) =>
	`${grouped.format(n)} ${n === 1 ? word : words}`;
