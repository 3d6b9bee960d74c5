// SPDX-License-Identifier: GPL-2.0
/* icp-bpf shm: every segment, who made and who attaches it, how fast it is written. */
#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/robust_procs.h"
#include "lib/tracer.h"

/* cmocka's fail() and base/err.h's don't go together. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	(print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#define PAGE 4096ul
#define PAGES 40ul
#define KEY 0x1c5e0001

static uint64_t make(const uint64_t *args)
{
	return (uint64_t)shmget(KEY, PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0640);
}

static uint64_t attach(const uint64_t *args)
{
	return (uintptr_t)shmat((int)args[0], NULL, (int)args[1]);
}

static void drop_rights(void *arg)
{
	if (setresuid(1234, 1234, 1234))
		_exit(125);
}

static json_t *look(void)
{
	struct run r;
	json_t *all;
	char *text;

	if (icp(&r, NULL, "shm", "--json", NULL))
		fail_msg("%s", run_text(r.err));
	text = run_text(r.out);
	all = json_loads(text, 0, NULL);
	assert_non_null(all);
	free(text);
	run_close(&r);
	return all;
}

/* The only one: we have an IPC namespace of our own. */
static json_t *the_segment(json_t *all)
{
	json_t *list = json_object_get(all, "segments");

	assert_int_equal(json_array_size(list), 1);
	return json_array_get(list, 0);
}

static void expect_attached(json_t *seg, size_t i, pid_t pid, uint64_t start)
{
	json_t *a = json_array_get(json_object_get(seg, "attached"), i);

	assert_int_equal(number(a, "pid"), pid);
	assert_string_equal(text(a, "comm"), "sysv_seen");
	assert_int_equal(hex(a, "start"), start);
	assert_int_equal(hex(a, "end"), start + PAGES * PAGE);
	assert_int_equal(number(a, "offset"), 0);
}

struct pair {
	struct kid *server, *client; /* attach it once; twice */
	int id;
	uint64_t at[3];
};

static void begin(struct pair *p)
{
	struct kid *first = kid_start(), *second = kid_start();

	/* attachments are sorted by pid */
	p->server = first->pid < second->pid ? first : second;
	p->client = first->pid < second->pid ? second : first;
	p->id = (int)kid_call(p->server, make, 0);
	assert_true(p->id >= 0);
	p->at[0] = kid_call(p->server, attach, (uint64_t)p->id);
	p->at[2] = kid_call(p->client, attach, (uint64_t)p->id);
	p->at[1] = kid_call(p->client, attach, (uint64_t)p->id, SHM_RDONLY);
	if (p->at[1] > p->at[2]) {
		uint64_t low = p->at[2];

		p->at[2] = p->at[1];
		p->at[1] = low;
	}
	kid_call(p->server, kid_write, p->at[0], 7);
}

static void test_json(void **state)
{
	struct pair p;
	json_t *all, *seg;

	begin(&p);
	all = look();
	seg = the_segment(all);
	assert_int_equal(strtoul(text(seg, "key"), NULL, 16), KEY);
	assert_int_equal(number(seg, "id"), p.id);
	assert_int_equal(number(seg, "size"), PAGES * PAGE);
	assert_int_equal(number(seg, "resident"), 7 * PAGE);
	assert_string_equal(text(seg, "mode"), "0640");
	assert_int_equal(number(seg, "uid"), getuid());
	assert_int_equal(number(seg, "creator_uid"), getuid());
	assert_int_equal(number(seg, "creator_pid"), p.server->pid);
	assert_int_equal(number(seg, "last_pid"), p.client->pid);
	assert_int_equal(number(seg, "attach_count"), 3);
	assert_true(json_is_false(json_object_get(seg, "removed")));
	assert_true(json_is_false(json_object_get(seg, "locked")));
	assert_true(json_is_null(json_object_get(seg, "dirty_bytes_per_s")));
	assert_int_equal(json_array_size(json_object_get(seg, "attached")), 3);
	expect_attached(seg, 0, p.server->pid, p.at[0]);
	expect_attached(seg, 1, p.client->pid, p.at[1]);
	expect_attached(seg, 2, p.client->pid, p.at[2]);
	json_decref(all);
	/* marks, and what has no attachment any more is gone */
	assert_int_equal(shmctl(p.id, SHM_LOCK, NULL), 0);
	assert_int_equal(shmctl(p.id, IPC_RMID, NULL), 0);
	all = look();
	seg = the_segment(all);
	assert_true(json_is_true(json_object_get(seg, "removed")));
	assert_true(json_is_true(json_object_get(seg, "locked")));
	json_decref(all);
	kids_end();
	all = look();
	assert_int_equal(json_array_size(json_object_get(all, "segments")), 0);
	json_decref(all);
}

static void expect(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("expected '%s', got: %s", part, text);
}

static char *list(void)
{
	struct run r;
	char *text;

	assert_int_equal(icp(&r, NULL, "shm", NULL), 0);
	text = run_text(r.out);
	run_close(&r);
	return text;
}

static void test_text(void **state)
{
	struct pair p;
	char line[160], *text;

	begin(&p);
	text = list();
	snprintf(line, sizeof(line),
		 "0x%08x %10d %8s %8s %04o %10u %10d %10s  %d (sysv_seen)\n", KEY, p.id,
		 "160.0K", "28.0K", 0640, getuid(), 3, "-", p.server->pid);
	expect(text, line);
	snprintf(line, sizeof(line), "    pid %d (sysv_seen) at %#lx-%#lx\n", p.server->pid,
		 p.at[0], p.at[0] + PAGES * PAGE);
	expect(text, line);
	snprintf(line, sizeof(line), "    pid %d (sysv_seen) at %#lx-%#lx\n", p.client->pid,
		 p.at[2], p.at[2] + PAGES * PAGE);
	expect(text, line);
	free(text);
	assert_int_equal(shmctl(p.id, IPC_RMID, NULL), 0);
	text = list();
	expect(text, "(sysv_seen), removed\n");
	expect(text, "0x00000000 "); /* nobody can find it by its key any more */
	free(text);
}

/* While a trace follows those who write it. */
static void test_rate(void **state)
{
	struct pair p;
	struct tracer *t;
	double end = seconds_now() + 60;
	bool seen = false;
	char *text;

	begin(&p);
	t = tracer_start("--pid", decimal(p.server->pid), "--pid", decimal(p.client->pid),
			 "--interval", "100ms", NULL);
	while (!seen && seconds_now() < end) {
		json_t *all = look(), *rate;

		kid_call(p.server, kid_write, p.at[0], PAGES);
		rate = json_object_get(the_segment(all), "dirty_bytes_per_s");
		seen = json_is_number(rate) && json_number_value(rate) > 0;
		json_decref(all);
	}
	assert_true(seen);
	text = list();
	expect(text, "/s ");
	free(text);
	tracer_stop(t);
	assert_int_equal(shmctl(p.id, IPC_RMID, NULL), 0);
}

/* Without the right to look at all processes it says how many it could not look at. */
static void test_without_rights(void **state)
{
	struct pair p;
	struct run r;
	json_t *all;
	char *text;

	begin(&p);
	assert_int_equal(
		icp(&r, &(struct run_how){.before = drop_rights}, "shm", "--json", NULL), 0);
	text = run_text(r.out);
	all = json_loads(text, 0, NULL);
	assert_non_null(all);
	free(text);
	run_close(&r);
	assert_int_equal(number(the_segment(all), "attach_count"), 3);
	assert_int_equal(json_array_size(json_object_get(the_segment(all), "attached")), 0);
	assert_true(number(all, "unread_processes") >= 2);
	json_decref(all);
	assert_int_equal(shmctl(p.id, IPC_RMID, NULL), 0);
}

static int teardown(void **state)
{
	int id = shmget(KEY, 0, 0);

	tracers_kill();
	kids_end();
	if (id >= 0)
		shmctl(id, IPC_RMID, NULL);
	return 0;
}

int main(void)
{
#define SEEN(name) cmocka_unit_test_teardown(name, teardown)
	const struct CMUnitTest tests[] = {
		SEEN(test_json),
		SEEN(test_text),
		SEEN(test_rate),
		SEEN(test_without_rights),
	};

	if (unshare(CLONE_NEWIPC))
		return 1;
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
