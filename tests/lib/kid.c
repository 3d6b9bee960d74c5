// SPDX-License-Identifier: GPL-2.0
#include "lib/kid.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul

static struct kid kids[64]; /* those that live: a test that fails leaves them to its teardown */

struct request {
	kid_fn fn;
	uint64_t args[4];
};

static void serve(int from, int to)
{
	struct request r;
	uint64_t result;

	while (read(from, &r, sizeof(r)) == sizeof(r)) {
		result = r.fn(r.args);
		if (write(to, &result, sizeof(result)) != sizeof(result))
			break;
	}
	_exit(0);
}

struct kid *kid_start(void)
{
	int down[2], up[2];
	struct kid *kid = kids;

	while (kid->pid)
		kid++;
	assert_true(kid < kids + 63);
	assert_int_equal(pipe2(down, O_CLOEXEC), 0);
	assert_int_equal(pipe2(up, O_CLOEXEC), 0);
	kid->pid = fork();
	assert_true(kid->pid >= 0);
	if (!kid->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(down[1]);
		close(up[0]);
		serve(down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	kid->to = down[1];
	kid->from = up[0];
	return kid;
}

void kid_ask(struct kid *kid, kid_fn fn, const uint64_t args[4])
{
	struct request r = {fn, {args[0], args[1], args[2], args[3]}};

	assert_int_equal(write(kid->to, &r, sizeof(r)), sizeof(r));
}

uint64_t kid_answer(struct kid *kid)
{
	struct pollfd fd = {.fd = kid->from, .events = POLLIN};
	uint64_t result;

	assert_int_equal(poll(&fd, 1, 20000), 1);
	assert_int_equal(read(kid->from, &result, sizeof(result)), sizeof(result));
	return result;
}

uint64_t kid_run(struct kid *kid, kid_fn fn, const uint64_t args[4])
{
	kid_ask(kid, fn, args);
	return kid_answer(kid);
}

void kids_end(void)
{
	for (struct kid *kid = kids; kid < kids + 64; kid++) {
		if (!kid->pid)
			continue;
		kill(kid->pid, SIGKILL);
		waitpid(kid->pid, NULL, 0);
		close(kid->to);
		close(kid->from);
		kid->pid = 0;
	}
}

uint64_t kid_map_fd(const uint64_t *args)
{
	char *room = mmap(NULL, args[0] + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0),
	     *at;

	if (room == MAP_FAILED)
		abort();
	at = mmap(room + PAGE, args[0], (int)args[1], (int)args[2] | MAP_FIXED, (int)args[3],
		  0);
	if (at == MAP_FAILED)
		abort();
	madvise(at, args[0], MADV_NOHUGEPAGE);
	return (uintptr_t)at;
}

uint64_t kid_map(const uint64_t *args)
{
	return kid_map_fd(
		(const uint64_t[4]){args[0], args[1], args[2] | MAP_ANONYMOUS, (uint64_t)-1});
}

uint64_t kid_write(const uint64_t *args)
{
	uint64_t stride = args[2] ? args[2] : 1, times = args[3] ? args[3] : 1;

	for (uint64_t k = 0; k < times; k++)
		for (uint64_t i = 0; i < args[1]; i++)
			*(volatile char *)(args[0] + i * stride * PAGE + i % PAGE) += 1;
	return 0;
}

uint64_t kid_read(const uint64_t *args)
{
	uint64_t stride = args[2] ? args[2] : 1, sum = 0;

	for (uint64_t i = 0; i < args[1]; i++)
		sum += *(volatile char *)(args[0] + i * stride * PAGE);
	return sum;
}
