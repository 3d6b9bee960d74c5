// SPDX-License-Identifier: GPL-2.0
/* The recommended interval against what really is the best one, found by trying. */
#include "serve/forecast.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/*
 * Time that a second of work takes on average (Daly 2006, equation 13, without the constant factor of the restart): failures come
 * at random, one in @mtbf on average, and throw away what was done since the last checkpoint.
 */
static double time_per_work(double interval, double cost, double mtbf)
{
	return mtbf * expm1((interval + cost) / mtbf) / interval;
}

/* The minimum, by ternary search: there is one. */
static double best_interval(double cost, double mtbf)
{
	double low = cost / 1000, high = 10 * mtbf;

	for (int i = 0; i < 400; i++) {
		double a = low + (high - low) / 3, b = high - (high - low) / 3;

		if (time_per_work(a, cost, mtbf) < time_per_work(b, cost, mtbf))
			high = b;
		else
			low = a;
	}
	return low;
}

static void is_the_best(void **state)
{
	static const double costs[] = {0.0005, 0.004, 0.1, 1, 20, 300},
			    mtbfs[] = {3600, 86400, 2592000};

	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		for (size_t k = 0; k < sizeof(mtbfs) / sizeof(mtbfs[0]); k++) {
			double is = forecast_interval(costs[i], mtbfs[k]),
			       best = best_interval(costs[i], mtbfs[k]);

			if (fabs(is / best - 1) > 0.01)
				fail_msg("cost %g, mtbf %g: %g, the best is %g", costs[i],
					 mtbfs[k], is, best);
		}
}

static void at_the_edges(void **state)
{
	/* the example of docs/forecast.md */
	assert_true(fabs(forecast_interval(0.004, 2592000) - 144) < 0.1);
	/* checkpoints that take as long as the machine lives */
	assert_true(forecast_interval(7200, 3600) == 3600);
	assert_true(forecast_interval(7199, 3600) > 0);
}

static struct proc *a_process(struct model *m, pid_t pid)
{
	struct proc *p = calloc(1, sizeof(*p)), **slot = vec_push(&m->procs);

	assert_true(p && slot);
	*slot = p;
	p->pid = pid;
	p->job = 1;
	p->last.interval_s = 1;
	heat_init(&p->heat);
	return p;
}

static void of_a_job(void **state)
{
	struct job job = {.pid = 1};
	struct forecast f;
	struct model *m;
	struct proc *one, *two;

	assert_int_equal(model_new(&m), 0);
	m->info.page_size = 4096;
	m->mtbf_s = 86400;
	one = a_process(m, 1);
	two = a_process(m, 2);
	one->resident = two->resident = 1000 * 4096;
	one->last.wws_pages[0] = 10;
	one->last.wws_pages[1] = 100;
	one->last.wws_pages[2] = 200;
	/* no version: all that is resident */
	forecast_job(m, &job, 0, &f);
	assert_false(f.incremental);
	assert_int_equal(f.pages, 2000);
	assert_true(f.bytes > 2000 * 4096 && f.bytes < 2100 * 4096);
	assert_true(f.dirtied[1] == 100 * 4096);
	assert_true(f.increment_bytes > 10 * 4096 && f.increment_bytes < 210 * 4096);
	/* of both processes: what they wrote since, and go on writing */
	job.version = one->version = two->version = 3;
	one->written = 50;
	one->written_before = 40;
	two->written = two->written_before = 7;
	forecast_job(m, &job, 2, &f);
	assert_true(f.incremental);
	assert_int_equal(f.pages, 50 + 7 + 10 * 2 + 10 / 10); /* and a tenth of a second */
	assert_int_equal(f.measured, 0);
	/* pages that turn out to be cheap */
	job.measured[job.n_measured++] = (struct measured){.pages = 100,
							   .bytes = 16384 + 100 * 1000,
							   .pause_ns = 5000000,
							   .meanwhile_s = 1.5};
	forecast_job(m, &job, 2, &f);
	assert_int_equal(f.bytes, 16384 + 92 * 1000);
	assert_true(fabs(f.pause_s - 0.005) < 1e-9);
	assert_int_equal(f.measured, 1);
	/* one process of it was not in that version */
	two->version = 0;
	forecast_job(m, &job, 2, &f);
	assert_false(f.incremental);
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_the_best),
		cmocka_unit_test(at_the_edges),
		cmocka_unit_test(of_a_job),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
