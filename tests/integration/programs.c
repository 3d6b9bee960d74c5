// SPDX-License-Identifier: GPL-2.0
/* Programs that people run, under load: checkpointed, killed, restarted, and their data checked. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/program.h"

/* ---- sqlite3 ---- */

/* Files are not in a version, so nobody may write them after it: --kill. */
static void transactions(struct job *j, const char *mode)
{
	const char *argv[] = {PYTHON, program_script("transactions.py"), mode, j->dir, NULL};
	struct run r;

	start(j, argv);
	wait_for(j, "half");
	CUT(j, ROUNDS);
	unlink(in(j, "half"));
	wait_for(j, "half");
	CUT(j, "--kill");
	kill_job(j);
	begin_version(j, &r, "4", NULL);
	touch(j, "go");
	ends_well(&r);
	succeeds((const char *[]){PYTHON, program_script("integrity.py"), in(j, "db"), NULL});
}

static void test_sqlite_wal(void **state)
{
	transactions(*state, "wal");
}

static void test_sqlite_journal(void **state)
{
	transactions(*state, "delete");
}

/* ---- redis ---- */

struct redis {
	struct job *job;
	char port[8], socket[96];
	struct run tcp, local; /* clients */
};

static void begin_client(struct run *r, const char *what, const char *where, const char *notes)
{
	const char *argv[] = {PYTHON, program_script("redis_load.py"), what, where, notes,
			      NULL};

	run_start(r, NULL, argv);
}

static void client(const char *what, const char *where, const char *notes)
{
	const char *argv[] = {PYTHON, program_script("redis_load.py"), what, where, notes,
			      NULL};

	succeeds(argv);
}

/* A hundred more acknowledged keys. */
static void wait_for_keys(const struct job *j, const char *notes)
{
	double end = seconds_now() + 30;
	size_t from = exists(j, notes) ? strlen(file_text("%s", in(j, notes))) : 0;

	while (!exists(j, notes) || strlen(file_text("%s", in(j, notes))) < from + 400) {
		if (seconds_now() > end)
			fail_msg("the server takes no keys: %s",
				 file_text("%s", in(j, "output")));
		nap_ms(20);
	}
}

static void begin_redis(struct redis *s, struct job *j)
{
	const char *argv[] = {built("tests/bin/redis-server"),
			      "--port",
			      s->port,
			      "--unixsocket",
			      s->socket,
			      "--appendonly",
			      "yes",
			      "--dir",
			      j->dir,
			      "--save",
			      "",
			      NULL};

	s->job = j;
	free_port(s->port);
	snprintf(s->socket, sizeof(s->socket), "%s/socket", j->dir);
	start(j, argv);
	wait_for(j, "socket");
	begin_client(&s->tcp, "load", s->port, in(j, "keys.tcp"));
	begin_client(&s->local, "load", s->socket, in(j, "keys.unix"));
	wait_for_keys(j, "keys.tcp");
	wait_for_keys(j, "keys.unix");
}

static void end_redis(struct redis *s, struct run *r, const char *tcp, const char *local)
{
	const char *check[] = {"sh", "-c", "redis-check-aof \"$0\"/appendonlydir/*.manifest",
			       s->job->dir, NULL};

	client("verify", s->port, in(s->job, tcp));
	client("verify", s->socket, in(s->job, local));
	client("shutdown", s->port, "");
	ends_well(r);
	succeeds(check);
}

/* Nothing that was acknowledged is lost. */
static void test_redis_moved(void **state)
{
	struct redis s;
	struct run r;

	begin_redis(&s, *state);
	CUT(s.job, "--tcp-close", ROUNDS);
	wait_for_keys(s.job, "keys.tcp");
	CUT(s.job, "--tcp-close", "--kill");
	kill_job(s.job);
	ends_well(&s.tcp);
	ends_well(&s.local);
	begin_version(s.job, &r, "4", NULL);
	end_redis(&s, &r, "keys.tcp", "keys.unix");
}

/* It went on after the version: back to that. */
static void test_redis_rewound(void **state)
{
	struct redis s;
	struct run r;

	begin_redis(&s, *state);
	CUT(s.job, "--tcp-close", ROUNDS);
	succeeds((const char *[]){"cp", in(s.job, "keys.tcp"), in(s.job, "then.tcp"), NULL});
	succeeds((const char *[]){"cp", in(s.job, "keys.unix"), in(s.job, "then.unix"), NULL});
	CUT(s.job, "--tcp-close");
	wait_for_keys(s.job, "keys.unix");
	kill_job(s.job);
	ends_well(&s.tcp);
	ends_well(&s.local);
	begin_version(s.job, &r, "4", "--files=rewind");
	end_redis(&s, &r, "then.tcp", "then.unix");
}

/* ---- asyncio ---- */

/* The connection is moved: the client sees a pause. */
static void test_asyncio(void **state)
{
	struct job *j = *state;
	char port[8];
	const char *server[] = {
		PYTHON, program_script("asyncio_server.py"), "server", port, j->dir, NULL};
	const char *asks[] = {PYTHON, server[1], "client", port, j->dir, NULL};
	struct run r, client;

	free_port(port);
	start(j, server);
	wait_for(j, "ready");
	run_start(&client, NULL, asks);
	wait_for(j, "served");
	CUT(j, ROUNDS);
	CUT(j, "--kill");
	end_group(j);
	unlink(in(j, "served"));
	begin_version(j, &r, "4", NULL);
	touch(j, "go");
	ends_well(&client);
	kill(r.pid, SIGTERM);
	ends_well(&r);
	assert_true(exists(j, "reaped"));
}

int main(void)
{
#define PROGRAM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		PROGRAM(test_sqlite_wal),  PROGRAM(test_sqlite_journal),
		PROGRAM(test_redis_moved), PROGRAM(test_redis_rewound),
		PROGRAM(test_asyncio),
	};

	if (!program_scripts(__FILE__))
		return 1;
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
