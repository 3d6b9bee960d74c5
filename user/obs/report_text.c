// SPDX-License-Identifier: GPL-2.0
#include "obs/report_text.h"

#include <inttypes.h>
#include <time.h>

#include "obs/view.h"

#define STEPS 20 /* lines of rate over time */
#define BAR 40

static void print_start(const struct report *r, FILE *out)
{
	const struct rec_start *start = rec_started(r->reader);
	time_t seconds = (time_t)(start->start_ns / 1000000000u);
	char when[32] = "?";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	fprintf(out, "recorded %s, %.1f s, %s tracker, a look every %g s, pages of %s; ", when,
		(double)r->end_us / 1e6, start->tracker, (double)start->interval_us / 1e6,
		human_bytes((double)start->page_size, (char[16]){0}));
	if (r->reason)
		fprintf(out, "ended by %s\n", r->reason);
	else
		fprintf(out, "its end is missing\n");
}

/* Bytes written in [from, to), of takes that lie in it in part the same part. */
static double bytes_between(const struct report_process *p, uint64_t from, uint64_t to,
			    uint64_t page)
{
	double bytes = 0;

	vec_each (t, &p->takes) {
		uint64_t begin = t->time_us - t->interval_us;
		uint64_t a = begin > from ? begin : from, b = t->time_us < to ? t->time_us : to;

		if (t->interval_us && a < b)
			bytes += (double)(t->pages * page) * (double)(b - a) /
				 (double)t->interval_us;
	}
	return bytes;
}

static void print_rates(const struct report *r, const struct report_process *p, FILE *out)
{
	size_t steps = p->takes.n < STEPS ? p->takes.n : STEPS;
	uint64_t page = rec_started(r->reader)->page_size;
	double rates[STEPS], most = 0;

	for (size_t i = 0; i < steps; i++) {
		uint64_t from = r->end_us * i / steps, to = r->end_us * (i + 1) / steps;

		rates[i] = to > from ? bytes_between(p, from, to, page) /
					       ((double)(to - from) / 1e6)
				     : 0;
		most = rates[i] > most ? rates[i] : most;
	}
	if (steps)
		fprintf(out, "  %17s  %10s\n", "seconds", "dirty rate");
	for (size_t i = 0; i < steps; i++) {
		uint64_t from = r->end_us * i / steps, to = r->end_us * (i + 1) / steps;
		int bar = most > 0 ? (int)(rates[i] / most * BAR + 0.5) : 0;

		fprintf(out, "  %8.1f-%8.1f  %8s/s  %.*s\n", (double)from / 1e6,
			(double)to / 1e6, human_bytes(rates[i], (char[16]){0}), bar,
			"########################################");
	}
}

static void print_vmas(const struct report_process *p, size_t top, FILE *out)
{
	if (p->vmas.n && top)
		fprintf(out, "  %10s  %6s  %-31s  %s\n", "dirty", "share", "range", "memory");
	for (size_t i = 0; i < p->vmas.n && i < top; i++) {
		const struct report_vma *v = &p->vmas.data[i];
		char range[48];

		snprintf(range, sizeof(range), "%012" PRIx64 "-%012" PRIx64, v->start, v->end);
		fprintf(out, "  %10s  %5.1f%%  %-31s  %s\n",
			human_count(v->pages, (char[32]){0}),
			p->pages ? 100.0 * (double)v->pages / (double)p->pages : 0.0, range,
			v->name);
	}
	if (p->vmas.n > top)
		fprintf(out, "  %10s  in %zu more\n", "", p->vmas.n - top);
}

static void print_writers(const struct report_process *p, size_t top, FILE *out)
{
	if (p->writers.n && top)
		fprintf(out, "  %10s  %7s  %-15s  %s\n", "faults", "thread", "name",
			"function");
	for (size_t i = 0; i < p->writers.n && i < top; i++) {
		const struct report_writer *w = &p->writers.data[i];

		fprintf(out, "  %10s  %7d  %-15s  %s%s\n",
			human_count(w->faults, (char[32]){0}), w->tid, w->comm, w->function,
			w->kernel_faults * 2 > w->faults ? " (kernel)" : "");
	}
	if (p->writers.n > top)
		fprintf(out, "  %10s  in %zu more\n", "", p->writers.n - top);
}

static void print_process(const struct report *r, const struct report_process *p, size_t top,
			  FILE *out)
{
	uint64_t page = rec_started(r->reader)->page_size, time_us = 0;
	double peak = 0;

	vec_each (t, &p->takes) {
		double rate = t->interval_us ? (double)(t->pages * page) /
						       ((double)t->interval_us / 1e6)
					     : 0;

		time_us += t->interval_us;
		peak = rate > peak ? rate : peak;
	}
	fprintf(out, "pid %d %s%s: %zu takes, mean %s/s, peak %s/s, %s written at least once",
		p->pid, p->comm, p->exited ? " (ended)" : "", p->takes.n,
		human_bytes(time_us ? (double)(p->pages * page) / ((double)time_us / 1e6) : 0,
			    (char[16]){0}),
		human_bytes(peak, (char[16]){0}),
		human_bytes((double)touched_bytes(&p->touched), (char[16]){0}));
	fprintf(out, ", %s faults (%s by the kernel), %s events lost\n",
		human_count(p->faults, (char[32]){0}),
		human_count(p->kernel_faults, (char[32]){0}),
		human_count(p->lost, (char[32]){0}));
	print_rates(r, p, out);
	print_vmas(p, top, out);
	print_writers(p, top, out);
}

void report_print(const struct report *r, pid_t pid, size_t top, FILE *out)
{
	print_start(r, out);
	vec_each (p, &r->processes)
		if (!pid || p->pid == pid)
			print_process(r, p, top, out);
}

/* Quoted where it has to be. */
static void csv_text(const char *text, FILE *out)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc((unsigned char)*text < 0x20 ? '?' : *text, out);
	}
	fputc('"', out);
}

void report_csv(const struct report *r, pid_t pid, FILE *out)
{
	uint64_t page = rec_started(r->reader)->page_size;

	fputs("time_s,pid,comm,interval_s,dirty_pages,dirty_bytes_per_s,faults,kernel_faults,"
	      "lost_events\n",
	      out);
	vec_each (p, &r->processes) {
		if (pid && p->pid != pid)
			continue;
		vec_each (t, &p->takes) {
			double seconds = (double)t->interval_us / 1e6;

			fprintf(out, "%.6f,%d,", (double)t->time_us / 1e6, p->pid);
			csv_text(p->comm, out);
			fprintf(out,
				",%.6f,%" PRIu64 ",%.1f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n",
				seconds, t->pages,
				seconds > 0 ? (double)(t->pages * page) / seconds : 0.0,
				t->faults, t->kernel_faults, t->lost);
		}
	}
}
