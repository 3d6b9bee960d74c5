// SPDX-License-Identifier: GPL-2.0
#include "serve/forecast.h"

#include <math.h>
#include <stdlib.h>

/* Before anything was measured; docs/forecast.md says where they come from. */
#define FIXED_BYTES 16384u	/* a version's manifest and records */
#define ENTRY_BYTES 44u		/* of a page beside its content */
#define PAUSE_PROCESS_S 0.0008	/* freezing, registers, descriptors: each process */
#define PAUSE_PER_GIB_S 0.0005	/* looking at the page tables */
#define PAUSE_PER_PAGE_S 0.7e-6 /* copying */
#define LAST_ROUND_S 0.02	/* what is written meanwhile is left for the pause */
#define PRECOPY_S 0.1		/* what is written meanwhile is in the version, too */

#define SHORTEST_S 1.0

double forecast_interval(double cost_s, double mtbf_s)
{
	double x;

	if (cost_s >= 2 * mtbf_s)
		return mtbf_s;
	x = cost_s / (2 * mtbf_s);
	return sqrt(2 * cost_s * mtbf_s) * (1 + sqrt(x) / 3 + x / 9) - cost_s;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of what @of says of the measured increments that it says something of; else @otherwise. */
static double median(const struct job *job, double (*of)(const struct measured *),
		     double otherwise)
{
	double values[MEASURED];
	size_t n = 0;

	for (size_t i = 0; i < MEASURED && i < job->n_measured; i++) {
		values[n] = of(&job->measured[i]);
		n += values[n] >= 0;
	}
	if (!n)
		return otherwise;
	qsort(values, n, sizeof(values[0]), by_value);
	return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static double bytes_per_page(const struct measured *m)
{
	return m->pages && m->bytes >= FIXED_BYTES
		       ? (double)(m->bytes - FIXED_BYTES) / (double)m->pages
		       : -1;
}

static double pause_but_copy(const struct measured *m)
{
	return m->pause_ns >= m->copy_ns && m->pause_ns
		       ? (double)(m->pause_ns - m->copy_ns) / 1e9
		       : -1;
}

static double copy(const struct measured *m)
{
	return m->pause_ns ? (double)m->copy_ns / 1e9 : -1;
}

static double rate(const struct measured *m)
{
	return m->rate;
}

static double total(const struct measured *m)
{
	return (double)m->total_ns / 1e9;
}

static double meanwhile(const struct measured *m)
{
	return m->meanwhile_s;
}

/* Of all processes of the job. */
struct sums {
	size_t processes;
	uint64_t resident, written;
	double growth; /* pages a second that `written` grows by */
	double rate;   /* pages a second that are dirtied */
	bool known;    /* `written` is of every process, and of one version */
};

static struct sums add_up(const struct model *m, const struct job *job, double dirtied[WINDOWS])
{
	struct sums s = {.known = job->version != 0};

	vec_each (each, &m->procs) {
		const struct proc *p = *each;
		double interval = p->last.interval_s;

		if (p->job != job->pid)
			continue;
		s.processes++;
		s.resident += p->resident;
		s.written += p->written;
		s.known &= p->version == job->version;
		if (interval > 0) {
			s.growth += (double)(p->written - p->written_before) / interval;
			s.rate += (double)p->last.dirty_pages / interval;
		}
		for (int i = 0; i < WINDOWS; i++)
			dirtied[i] += (double)(p->last.wws_pages[i] * m->info.page_size);
	}
	return s;
}

double forecast_written(const struct model *m, const struct job *job, double age_s,
			double *growth)
{
	double dirtied[WINDOWS] = {0};
	struct sums s = add_up(m, job, dirtied);

	*growth = s.growth;
	return s.known ? (double)s.written + s.growth * (age_s > 0 ? age_s : 0) : -1;
}

static double predict_pause(const struct job *job, const struct sums *s)
{
	double fixed = PAUSE_PROCESS_S * (double)s->processes +
		       PAUSE_PER_GIB_S * (double)s->resident / (1u << 30);
	double then = median(job, rate, 0), scale = then > 0 ? s->rate / then : 1;

	if (!job->n_measured)
		return fixed + PAUSE_PER_PAGE_S * s->rate * LAST_ROUND_S;
	scale = scale > 4 ? 4 : scale;
	return median(job, pause_but_copy, fixed) + scale * median(job, copy, 0);
}

/* What is dirtied within @seconds: between the windows in a straight line. */
static double dirtied_in(const struct forecast *f, double seconds)
{
	for (int i = 1; i < WINDOWS; i++) {
		double from = window_seconds[i - 1], to = window_seconds[i];

		if (seconds <= to)
			return seconds <= from ? f->dirtied[i - 1]
					       : f->dirtied[i - 1] +
							 (f->dirtied[i] - f->dirtied[i - 1]) *
								 (seconds - from) / (to - from);
	}
	return f->dirtied[WINDOWS - 1];
}

void forecast_job(const struct model *m, const struct job *job, double age_s,
		  struct forecast *out)
{
	double per_page, shortest;
	struct sums s;

	*out = (struct forecast){.measured = job->n_measured < MEASURED ? job->n_measured
									: MEASURED};
	s = add_up(m, job, out->dirtied);
	per_page = median(job, bytes_per_page, (double)(m->info.page_size + ENTRY_BYTES));
	out->full_bytes =
		job->has_full
			? job->full.bytes
			: FIXED_BYTES + (uint64_t)((double)s.resident *
						   (1 + (double)ENTRY_BYTES /
								(double)m->info.page_size));
	out->pause_s = predict_pause(job, &s);
	out->interval_s = forecast_interval(out->pause_s, m->mtbf_s);
	shortest = median(job, total, SHORTEST_S); /* one after the other */
	if (out->interval_s < shortest || out->interval_s < SHORTEST_S)
		out->interval_s = shortest > SHORTEST_S ? shortest : SHORTEST_S;
	out->overhead = out->pause_s / out->interval_s + out->interval_s / (2 * m->mtbf_s);
	out->incremental = s.known;
	out->pages = s.known ? s.written + (uint64_t)(s.growth * (age_s + median(job, meanwhile,
										 PRECOPY_S)))
			     : s.resident / m->info.page_size;
	out->increment_bytes =
		FIXED_BYTES + (uint64_t)((s.known ? (double)out->pages
						  : dirtied_in(out, out->interval_s) /
							    (double)m->info.page_size) *
					 per_page);
	out->bytes = s.known ? out->increment_bytes : out->full_bytes;
}
