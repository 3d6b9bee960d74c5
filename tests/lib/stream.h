/* SPDX-License-Identifier: GPL-2.0 */
/* A stream whose every byte is known by its place, both ways over one socket. */
#ifndef ICP_TESTS_STREAM_H
#define ICP_TESTS_STREAM_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

struct stream {
	int fd; /* non-blocking */
	uint64_t out_seed, in_seed;
	uint64_t sent, received;
	bool ended; /* the other side has */
};

static inline uint8_t stream_byte(uint64_t seed, uint64_t at)
{
	uint64_t x = (at >> 3) * 0x9e3779b97f4a7c15u + seed;

	x ^= x >> 29;
	return (uint8_t)(x * 0xbf58476d1ce4e5b9u >> (at % 8 * 8));
}

/* Send (if @send_more) and receive what goes; false when something is wrong. */
static inline bool stream_step(struct stream *s, bool send_more, int wait_ms)
{
	struct pollfd p = {s->fd, (short)(POLLIN | (send_more ? POLLOUT : 0)), 0};
	uint8_t buf[16384];
	ssize_t n;

	usleep(300); /* leave something of the machine to others */
	if (poll(&p, 1, wait_ms) < 0)
		return errno == EINTR;
	if (p.revents & POLLOUT) {
		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = stream_byte(s->out_seed, s->sent + i);
		n = send(s->fd, buf, sizeof(buf), MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return false;
		s->sent += n > 0 ? (uint64_t)n : 0;
	}
	if (!(p.revents & ~POLLOUT))
		return true;
	n = recv(s->fd, buf, sizeof(buf), 0);
	if (n < 0)
		return errno == EAGAIN;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != stream_byte(s->in_seed, s->received + (uint64_t)i))
			return false;
	s->received += (uint64_t)n;
	s->ended |= n == 0;
	return true;
}

#endif
