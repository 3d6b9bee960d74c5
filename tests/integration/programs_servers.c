// SPDX-License-Identifier: GPL-2.0
/* nginx under load: its master and workers are moved, the connections of its clients with them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/program.h"

#define DATA 70000

static void write_config(const struct job *j, const char *port)
{
	FILE *f = fopen(in(j, "nginx.conf"), "w");

	assert_non_null(f);
	fprintf(f,
		"daemon off; worker_processes 2; pid pid; error_log error;\n"
		"events { worker_connections 64; }\n"
		"http { access_log access; client_body_temp_path b; proxy_temp_path p;\n"
		"fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
		"server { listen 127.0.0.1:%s; root %s; keepalive_requests 100000000; } }\n",
		port, j->dir);
	assert_int_equal(fclose(f), 0);
}

static void write_data(const struct job *j)
{
	FILE *f = fopen(in(j, "data"), "w");

	assert_non_null(f);
	for (int i = 0; i < DATA; i++)
		fputc((i * 7919 >> 5) & 0xff, f);
	assert_int_equal(fclose(f), 0);
}

/* A hundred answers over each connection, from now on. */
static void wait_served(const struct job *j, struct run *client)
{
	double end = seconds_now() + 60;
	char name[16];

	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "served.%d", i);
		unlink(in(j, name));
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "served.%d", i);
		while (!exists(j, name)) {
			if (seconds_now() > end || waitpid(client->pid, NULL, WNOHANG))
				fail_msg("no answers: %s", run_text(client->err));
			nap_ms(5);
		}
	}
}

static unsigned long lines(const struct job *j, const char *name)
{
	char *text = file_text("%s", in(j, name));
	unsigned long n = 0;

	for (char *at = text; (at = strchr(at, '\n')); at++)
		n++;
	free(text);
	return n;
}

static void test_nginx(void **state)
{
	struct job *j = *state;
	char port[8], prefix[80];
	const char *server[] = {built("tests/bin/nginx"),
				"-p",
				prefix,
				"-c",
				"nginx.conf",
				"-e",
				"error",
				NULL};
	const char *load[] = {PYTHON, program_script("http_load.py"), port, j->dir, NULL};
	struct run r, client;

	if (access(server[0], X_OK))
		skip();
	free_port(port);
	snprintf(prefix, sizeof(prefix), "%s/", j->dir);
	write_config(j, port);
	write_data(j);
	start(j, server);
	wait_for(j, "pid");
	run_start(&client, NULL, load);
	wait_served(j, &client);
	CUT(j, ROUNDS);
	wait_served(j, &client);
	CUT(j, "--kill");
	end_group(j);
	begin_version(j, &r, "4", NULL);
	wait_served(j, &client);
	touch(j, "go");
	ends_well(&client);
	kill(r.pid, SIGQUIT); /* as an operator ends it: what it has begun is answered */
	ends_well(&r);
	/* each answer is logged once, and there were no others */
	assert_int_equal(lines(j, "access"),
			 strtoul(file_text("%s", in(j, "answers")), NULL, 10));
	assert_false(exists(j, "pid"));
}

int main(int argc, char **argv)
{
#define PROGRAM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {PROGRAM(test_nginx)};

	if (!program_scripts(__FILE__))
		return 1;
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
