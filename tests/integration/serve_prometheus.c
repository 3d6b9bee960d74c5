// SPDX-License-Identifier: GPL-2.0
/* A real Prometheus reads `icp-bpf serve`: what it stores is what the trace counted, and the dashboard and the alerts work on it. */
#include <arpa/inet.h>
#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/scratch.h"
#include "lib/server.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static struct server server;
static struct run prometheus;
static int prometheus_port, segment = -1;
static char dir[SCRATCH_MAX];

static int clean(void **state)
{
	struct run r;

	if (prometheus.pid)
		run_close(&prometheus);
	memset(&prometheus, 0, sizeof(prometheus));
	if (server.r.pid)
		run_close(&server.r);
	memset(&server, 0, sizeof(server));
	kids_end();
	if (segment >= 0)
		shmctl(segment, IPC_RMID, NULL);
	segment = -1;
	if (dir[0]) {
		run_start(&r, NULL, (const char *[]){"rm", "-rf", dir, NULL});
		run_wait(&r, 60);
		run_close(&r);
	}
	dir[0] = 0;
	return 0;
}

static const char *tool(const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), "tests/prometheus/usr/bin/%s", name);
	return built(path);
}

/* promtool with these arguments and @text (or NULL) on its standard input. */
static void promtool(const char *const *args, const char *text)
{
	char command[1024], *said;
	size_t len = (size_t)snprintf(command, sizeof(command), "exec '%s'", tool("promtool"));
	struct run r;
	char path[SCRATCH_MAX + 8];

	for (; *args; args++)
		len += (size_t)snprintf(command + len, sizeof(command) - len, " '%s'", *args);
	if (text) {
		FILE *file;

		snprintf(path, sizeof(path), "%s/input", dir);
		file = fopen(path, "we");
		assert_non_null(file);
		fputs(text, file);
		fclose(file);
		snprintf(command + len, sizeof(command) - len, " < '%s'", path);
	}
	run_start(&r, NULL, (const char *[]){"sh", "-c", command, NULL});
	run_wait(&r, 60);
	said = run_text(r.err);
	if (WEXITSTATUS(r.status) || (text && said[0]))
		fail_msg("%s: %s%s", command, run_text(r.out), said);
	free(said);
	run_close(&r);
}

static int free_port(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	close(fd);
	return ntohs(addr.sin_port);
}

static void start_prometheus(void)
{
	char config[SCRATCH_MAX + 24], data[SCRATCH_MAX + 48], listen[64],
		file_arg[SCRATCH_MAX + 48];
	double end = seconds_now() + 60;
	FILE *file;

	snprintf(config, sizeof(config), "%s/prometheus.yml", dir);
	file = fopen(config, "we");
	assert_non_null(file);
	fprintf(file,
		"global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
		"scrape_configs:\n"
		"  - job_name: icp-bpf\n"
		"    static_configs: [{targets: ['127.0.0.1:%d']}]\n",
		server.port);
	fclose(file);
	prometheus_port = free_port();
	snprintf(file_arg, sizeof(file_arg), "--config.file=%s", config);
	snprintf(data, sizeof(data), "--storage.tsdb.path=%s/data", dir);
	snprintf(listen, sizeof(listen), "--web.listen-address=127.0.0.1:%d", prometheus_port);
	run_start(&prometheus, NULL,
		  (const char *[]){tool("prometheus"), file_arg, data, listen, NULL});
	while (http_get(prometheus_port, "/-/ready", NULL, NULL) != 200) {
		if (seconds_now() > end)
			fail_msg("prometheus: %s", run_text(prometheus.err));
		nap_ms(100);
	}
}

/* The result of a query; to be freed. */
static json_t *query(const char *expr)
{
	char path[8192] = "/api/v1/query?query=", *to = path + strlen(path), *body;
	json_t *json, *result;

	for (; *expr && to < path + sizeof(path) - 4; expr++)
		to += isalnum((unsigned char)*expr)
			      ? sprintf(to, "%c", *expr)
			      : sprintf(to, "%%%02X", (unsigned char)*expr);
	http_get(prometheus_port, path, NULL, &body);
	json = json_loads(body, 0, NULL);
	result = json_object_get(json_object_get(json, "data"), "result");
	if (strcmp(text(json, "status"), "success") || !result)
		fail_msg("%s: %s", path, body);
	json_incref(result);
	json_decref(json);
	free(body);
	return result;
}

/* Of a query with one value; -1: none yet. */
static double value_of(const char *expr)
{
	json_t *result = query(expr);
	double value = -1;

	if (json_array_size(result) == 1)
		value = strtod(json_string_value(json_array_get(
				       json_object_get(json_array_get(result, 0), "value"), 1)),
			       NULL);
	json_decref(result);
	return value;
}

static void wait_value(const char *expr, double wanted)
{
	double end = seconds_now() + 60, is;

	while ((is = value_of(expr)) != wanted) {
		if (seconds_now() > end)
			fail_msg("%s is %.15g, not %.15g", expr, is, wanted);
		nap_ms(200);
	}
}

static json_t *totals_of(pid_t pid)
{
	json_t *process, *totals;
	char path[64];

	snprintf(path, sizeof(path), "/api/processes/%d?samples=1", pid);
	process = server_json(&server, path);
	totals = json_object_get(process, "totals");
	json_incref(totals);
	json_decref(process);
	return totals;
}

static uint64_t attach(const uint64_t *args)
{
	return (uint64_t)(uintptr_t)shmat((int)args[0], NULL, 0);
}

/* A process that has written private memory and a segment and is idle now, and was checkpointed twice. */
static struct kid *make_history(void)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 600 * PAGE, RW, MAP_PRIVATE), at;
	struct run r;
	char repo[SCRATCH_MAX + 8];

	assert_non_null(mkdtemp(scratch(dir, "prometheus")));
	segment = shmget(IPC_PRIVATE, 32 * PAGE, 0600);
	assert_true(segment >= 0);
	at = kid_call(kid, attach, (uint64_t)segment);
	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	snprintf(repo, sizeof(repo), "%s/repo", dir);
	for (uint64_t i = 0; i < 2; i++) {
		kid_call(kid, kid_write, area, 600 / (i + 1));
		kid_call(kid, kid_write, at, 32);
		server_catch_up(&server);
		assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", decimal(kid->pid),
				     "--dir", repo, "--no-restart", NULL),
				 0);
		run_close(&r);
	}
	server_catch_up(&server);
	return kid;
}

static void accepted(void **state)
{
	char *metrics;

	make_history();
	assert_int_equal(http_get(server.port, "/metrics", NULL, &metrics), 200);
	promtool((const char *[]){"check", "metrics", NULL}, metrics);
	free(metrics);
	server_stop(&server);
}

static void stores_what_was_counted(void **state)
{
	struct kid *kid = make_history();
	char expr[128];
	json_t *totals, *later;

	start_prometheus();
	totals = totals_of(kid->pid);
	snprintf(expr, sizeof(expr), "icpbpf_dirty_pages_total{pid=\"%d\"}", kid->pid);
	wait_value(expr, (double)number(totals, "dirty_pages"));
	snprintf(expr, sizeof(expr), "sum(icpbpf_write_faults_total{pid=\"%d\"})", kid->pid);
	wait_value(expr, (double)number(totals, "faults"));
	snprintf(expr, sizeof(expr), "icpbpf_write_faults_total{pid=\"%d\",origin=\"kernel\"}",
		 kid->pid);
	wait_value(expr, (double)number(totals, "kernel_faults"));
	wait_value("icpbpf_segment_dirty_pages_total{key=\"0x00000000\"}", 64);
	wait_value("sum(icpbpf_checkpoints_total)", 2);
	wait_value("icpbpf_checkpoint_pause_seconds_count", 2);
	wait_value("count(icpbpf_build_info)", 1);
	/* and what comes while it looks on */
	for (int i = 0; i < 5; i++) {
		kid_call(kid, kid_write, kid_call(kid, kid_map, 100 * PAGE, RW, MAP_PRIVATE),
			 100);
		server_catch_up(&server);
	}
	later = totals_of(kid->pid);
	assert_true(number(later, "dirty_pages") >= number(totals, "dirty_pages") + 500);
	snprintf(expr, sizeof(expr), "icpbpf_dirty_pages_total{pid=\"%d\"}", kid->pid);
	wait_value(expr, (double)number(later, "dirty_pages"));
	json_decref(totals);
	json_decref(later);
	server_stop(&server);
}

/* A file of the project: tests run at its top. */
static json_t *dashboard(void)
{
	json_error_t error;
	json_t *json = json_load_file("dashboards/icp-bpf.json", 0, &error);

	if (!json)
		fail_msg("dashboards/icp-bpf.json: %s", error.text);
	return json;
}

/* As Grafana puts its variables in. */
static void fill_in(const char *expr, char *out, size_t len)
{
	static const struct {
		const char *name, *value;
	} variables[] = {{"$__rate_interval", "30s"}, {"$instance", ".*"}, {"$comm", ".*"}};
	size_t n = 0;

	while (*expr && n + 8 < len) {
		bool found = false;

		for (size_t i = 0; i < 3 && !found; i++) {
			size_t name = strlen(variables[i].name);

			found = !strncmp(expr, variables[i].name, name);
			if (found) {
				n += (size_t)sprintf(out + n, "%s", variables[i].value);
				expr += name;
			}
		}
		if (!found)
			out[n++] = *expr++;
	}
	out[n] = 0;
	assert_null(strchr(out, '$'));
}

static void wait_result(const char *expr)
{
	double end = seconds_now() + 60;
	size_t n = 0;

	while (!n) {
		json_t *result = query(expr);

		n = json_array_size(result);
		json_decref(result);
		if (!n && seconds_now() > end)
			fail_msg("nothing comes of %s", expr);
		if (!n)
			nap_ms(200);
	}
}

static void dashboard_works(void **state)
{
	json_t *json, *panel, *target;
	size_t i, k, queries = 0;

	make_history();
	start_prometheus();
	json = dashboard();
	json_array_foreach(json_object_get(json, "panels"), i, panel)
	{
		json_array_foreach(json_object_get(panel, "targets"), k, target)
		{
			char expr[1024];

			/* each panel asks the data source that the user chose */
			assert_string_equal(text(json_object_get(target, "datasource"), "uid"),
					    "${datasource}");
			fill_in(text(target, "expr"), expr, sizeof(expr));
			wait_result(expr);
			queries++;
		}
	}
	assert_true(queries >= 15);
	json_decref(json);
	server_stop(&server);
}

static void alerts_work(void **state)
{
	assert_non_null(mkdtemp(scratch(dir, "prometheus")));
	promtool((const char *[]){"check", "rules", "dashboards/alerts.yml", NULL}, NULL);
	promtool((const char *[]){"test", "rules", "dashboards/alerts.test.yml", NULL}, NULL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(accepted, clean),
		cmocka_unit_test_teardown(stores_what_was_counted, clean),
		cmocka_unit_test_teardown(dashboard_works, clean),
		cmocka_unit_test_teardown(alerts_work, clean),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
