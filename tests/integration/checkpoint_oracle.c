// SPDX-License-Identifier: GPL-2.0
/*
 * Byte-exactness: after random work every version must be what the processes hold, whichever way the changes were found. The seed
 * is printed; ICP_SEED=... runs one again, ICP_VERSIONS=... sets the length of the chains, ICP_STEPS=... the operations between
 * two versions.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/oracle.h"
#include "lib/scratch.h"

#define VERSIONS 32
#define STEPS 60
#define CHAIN_MAX 1024

struct chain {
	char top[SCRATCH_MAX], dir[SCRATCH_MAX + 16];
	uint64_t seed;
	long versions, steps;
	struct talker target;
	struct run session;
	struct repo *repo;
	uint64_t digest[CHAIN_MAX];
	struct {
		long events, scan, hash, full;
		uint64_t pages, saved;
	} found;
};

static long from_env(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 0) : otherwise;
}

static void begin(struct chain *c, const char *name, const char *how)
{
	char seed[32], line[64];

	memset(c, 0, sizeof(*c));
	c->seed = (uint64_t)from_env("ICP_SEED",
				     (long)(time(NULL) % 1000000 * 100 + getpid() % 100));
	c->versions = from_env("ICP_VERSIONS", VERSIONS);
	c->steps = from_env("ICP_STEPS", STEPS);
	print_message("%s: seed %lu\n", name, c->seed);
	assert_non_null(mkdtemp(scratch(c->top, "oracle")));
	snprintf(c->dir, sizeof(c->dir), "%s/versions", c->top);
	snprintf(seed, sizeof(seed), "%lu", c->seed);
	/* the kernel writes the restartable sequence's area whenever a thread returns from the pause: see running_* for that */
	if (strncmp(how, "free", 4))
		setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	talker_start(&c->target, built("tests/targets/oracle_target"), seed, c->top, how, NULL);
	unsetenv("GLIBC_TUNABLES");
	for (int i = 0; i < (strncmp(how, "free", 4) ? 1 : 2); i++)
		assert_true(talker_line(&c->target, line, sizeof(line)));
}

/* The times of segments are whole seconds: only those that were attached a while ago need no comparison. */
static void let_segments_age(void)
{
	nap_ms(3200);
}

static void end(struct chain *c)
{
	char command[160];
	pid_t pids[64];
	size_t n = oracle_job(c->target.pid, pids, 64);

	for (size_t i = 1; i < n; i++)
		kill(pids[i], SIGKILL);
	talker_end(&c->target);
	if (c->session.pid) {
		kill(c->session.pid, SIGINT);
		run_wait(&c->session, 20);
		run_close(&c->session);
	}
	repo_close(c->repo);
	snprintf(command, sizeof(command), "rm -rf %s /dev/shm/oracle_shm.%d", c->top, pids[0]);
	assert_int_equal(system(command), 0);
}

static void start_session(struct chain *c)
{
	char pid[16];
	const char *argv[] = {built("icp-bpf"), "trace", "--tree", "--json", "--interval",
			      "70ms",		"--pid", pid,	   NULL};

	snprintf(pid, sizeof(pid), "%d", c->target.pid);
	run_start(&c->session, NULL, argv);
	if (!run_says(&c->session, "\"type\":\"start\"", 20))
		fail_msg("no session: %s", run_text(c->session.err));
}

/* One version; its JSON line, to be freed. */
static char *checkpoint(struct chain *c, const char *more, const char *too)
{
	struct run r;
	char pid[16], *line;

	snprintf(pid, sizeof(pid), "%d", c->target.pid);
	if (icp(&r, NULL, "checkpoint", "--no-restart", "--json", "--pid", pid, "--dir", c->dir,
		more, too, NULL))
		fail_msg("seed %lu: %s", c->seed, run_text(r.err));
	line = run_text(r.out);
	run_close(&r);
	c->found.events += strstr(line, "\"found_by\":\"events\"") != NULL;
	c->found.scan += strstr(line, "\"found_by\":\"scan\"") != NULL;
	c->found.hash += strstr(line, "\"found_by\":\"hash\"") != NULL;
	c->found.full += strstr(line, "\"type\":\"full\"") != NULL;
	return line;
}

static void look(struct chain *c, uint32_t version, const char *line)
{
	struct verdict verdict;

	repo_close(c->repo);
	c->repo = NULL;
	if (repo_open(c->dir, REPO_READ, &c->repo))
		fail_msg("seed %lu, version %u: the repository does not open", c->seed,
			 version);
	oracle_compare(c->repo, version, c->target.pid, &verdict);
	if (verdict.wrong)
		fail_msg("seed %lu: %lu pages are wrong: %s\n%s", c->seed, verdict.wrong,
			 verdict.first, line);
	c->found.pages += verdict.pages;
	c->found.saved += verdict.entries;
	c->digest[version] = oracle_digest(c->repo, version);
}

/* Every version is still what it was. */
static void look_back(struct chain *c)
{
	uint32_t *numbers;
	size_t n;

	assert_int_equal(repo_committed(c->repo, &numbers, &n), 0);
	assert_int_equal(n, c->versions);
	oracle_verify(c->repo, 0);
	for (size_t i = 0; i < n; i++)
		if (oracle_digest(c->repo, numbers[i]) != c->digest[numbers[i]])
			fail_msg("seed %lu: version %u has changed", c->seed, numbers[i]);
	free(numbers);
	print_message("%ld versions: %ld full, found by events %ld, scan %ld, hash %ld; %lu "
		      "pages compared, %lu of them saved\n",
		      c->versions, c->found.full, c->found.events, c->found.scan, c->found.hash,
		      c->found.pages, c->found.saved);
}

static void quiescent(const char *name, const char *how, bool session, const char *more)
{
	struct chain c;
	char ask[32];

	begin(&c, name, how);
	if (session)
		start_session(&c);
	if (!strcmp(how, "calm"))
		let_segments_age();
	for (uint32_t i = 1; i <= (uint32_t)c.versions; i++) {
		_cleanup_free_ char *line = NULL;

		snprintf(ask, sizeof(ask), "%ld\n",
			 i % 7 ? c.steps : 1); /* now and then next to nothing */
		talker_ask(&c.target, ask, "ok");
		line = checkpoint(&c, more, NULL);
		look(&c, i, line);
	}
	look_back(&c);
	if (!strcmp(how, "calm"))
		assert_true(c.found.events + c.found.scan > 0);
	end(&c);
}

static void let_run(struct chain *c)
{
	pid_t pids[64];
	size_t n = oracle_job(c->target.pid, pids, 64);

	for (size_t i = 0; i < n; i++)
		kill(pids[i], SIGCONT);
}

static void concurrent(const char *name, const char *how, bool session, const char *more)
{
	struct chain c;

	begin(&c, name, how);
	if (session)
		start_session(&c);
	if (strcmp(how, "free"))
		let_segments_age();
	for (uint32_t i = 1; i <= (uint32_t)c.versions; i++) {
		_cleanup_free_ char *line = NULL;

		nap_ms(20);
		line = checkpoint(&c, "--leave-frozen", more);
		look(&c, i, line);
		let_run(&c);
	}
	look_back(&c);
	end(&c);
}

static void by_hash(void **state)
{
	quiescent("by_hash", "busy", false, NULL);
}

static void by_session(void **state)
{
	quiescent("by_session", "busy", true, NULL);
}

static void calm_by_session(void **state)
{
	quiescent("calm_by_session", "calm", true, NULL);
}

static void with_lost_events(void **state)
{
	setenv("ICP_FAULT_RING", "4096", 1);
	quiescent("with_lost_events", "calm", true, NULL);
	unsetenv("ICP_FAULT_RING");
}

static void paranoid(void **state)
{
	quiescent("paranoid", "calm", true, "--paranoid");
}

static void running_by_hash(void **state)
{
	concurrent("running_by_hash", "free", false, NULL);
}

static void running_by_session(void **state)
{
	concurrent("running_by_session", "free", true, NULL);
}

static void running_calm(void **state)
{
	concurrent("running_calm", "free-calm", true, NULL);
}

static void running_plain(void **state)
{
	concurrent("running_plain", "free-plain", true, NULL);
}

static void running_with_lost_events(void **state)
{
	setenv("ICP_FAULT_RING", "4096", 1);
	concurrent("running_with_lost_events", "free-plain", true, NULL);
	unsetenv("ICP_FAULT_RING");
}

static void running_put_off(void **state)
{
	setenv("ICP_PUT_OFF", "1", 1);
	concurrent("running_put_off", "free", true, NULL);
	concurrent("running_put_off, calm", "free-plain", true, NULL);
	unsetenv("ICP_PUT_OFF");
}

static void running_paranoid(void **state)
{
	concurrent("running_paranoid", "free-plain", true, "--paranoid");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_hash),
		cmocka_unit_test(by_session),
		cmocka_unit_test(calm_by_session),
		cmocka_unit_test(with_lost_events),
		cmocka_unit_test(paranoid),
		cmocka_unit_test(running_by_hash),
		cmocka_unit_test(running_by_session),
		cmocka_unit_test(running_calm),
		cmocka_unit_test(running_plain),
		cmocka_unit_test(running_with_lost_events),
		cmocka_unit_test(running_put_off),
		cmocka_unit_test(running_paranoid),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : getenv("ICP_TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
