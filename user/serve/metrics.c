// SPDX-License-Identifier: GPL-2.0
/* docs/metrics.md. Labels are pids and names of followed processes, keys, window lengths: never addresses. */
#include "serve/metrics.h"

#include <inttypes.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/forecast.h"

double model_age(const struct model *m)
{
	return m->sample_ns ? (double)(now_ns() - m->sample_ns) / 1e9 : 0;
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A name is the target's choice: what is no printable ASCII becomes a question mark. */
static const char *label(const char *name, char buf[40])
{
	char *to = buf;

	for (size_t i = 0; i < 16 && name[i]; i++) {
		if (name[i] == '"' || name[i] == '\\')
			*to++ = '\\';
		*to++ = (unsigned char)name[i] < 32 || (unsigned char)name[i] > 126 ? '?'
										    : name[i];
	}
	*to = 0;
	return buf;
}

static void of_process(FILE *out, const struct proc *p, const char *name, const char *more,
		       double value)
{
	char comm[40];

	fprintf(out, "%s{pid=\"%d\",comm=\"%s\"%s} %.15g\n", name, p->pid, label(p->comm, comm),
		more, value);
}

static void write_processes(const struct model *m, FILE *out)
{
	head(out, "icpbpf_dirty_pages_total", "counter",
	     "Unique pages written per sample interval, summed up.");
	vec_each (p, &m->procs)
		of_process(out, *p, "icpbpf_dirty_pages_total", "",
			   (double)(*p)->total.dirty_pages);
	head(out, "icpbpf_write_working_set_bytes", "gauge",
	     "Distinct pages written within the window, in bytes.");
	vec_each (p, &m->procs)
		for (int i = 0; i < WINDOWS; i++) {
			char window[32];

			snprintf(window, sizeof(window), ",window=\"%us\"", window_seconds[i]);
			of_process(out, *p, "icpbpf_write_working_set_bytes", window,
				   (double)((*p)->last.wws_pages[i] * m->info.page_size));
		}
	head(out, "icpbpf_write_faults_total", "counter",
	     "First writes to a page in an interval, by the process or by the kernel for it.");
	vec_each (p, &m->procs) {
		const struct process_total *t = &(*p)->total;

		of_process(out, *p, "icpbpf_write_faults_total", ",origin=\"user\"",
			   (double)(t->faults - t->kernel_faults));
		of_process(out, *p, "icpbpf_write_faults_total", ",origin=\"kernel\"",
			   (double)t->kernel_faults);
	}
	head(out, "icpbpf_lost_events_total", "counter",
	     "Events that did not fit; dirty pages are right nevertheless.");
	vec_each (p, &m->procs)
		of_process(out, *p, "icpbpf_lost_events_total", "",
			   (double)(*p)->total.lost_events);
	head(out, "icpbpf_untold_faults_total", "counter",
	     "Write faults that were counted but not told one by one, because of a storm.");
	vec_each (p, &m->procs)
		of_process(out, *p, "icpbpf_untold_faults_total", "", (double)(*p)->untold);
}

static void write_segments(const struct model *m, FILE *out)
{
	head(out, "icpbpf_segment_dirty_pages_total", "counter",
	     "Unique pages of System V segments written by followed processes per interval.");
	vec_each (k, &m->keys)
		fprintf(out, "icpbpf_segment_dirty_pages_total{key=\"0x%08x\"} %" PRIu64 "\n",
			(unsigned)k->key, k->pages);
}

static void write_histogram(FILE *out, const char *name, const char *comm, size_t n,
			    const double *bounds, const struct histogram *h)
{
	uint64_t sum = 0;
	char text[40];

	label(comm, text);
	for (size_t i = 0; i < n; i++) {
		sum += h->counts[i];
		fprintf(out, "%s_bucket{comm=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, text,
			bounds[i], sum);
	}
	sum += h->counts[n];
	fprintf(out, "%s_bucket{comm=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, text, sum);
	fprintf(out, "%s_sum{comm=\"%s\"} %.9g\n", name, text, h->sum);
	fprintf(out, "%s_count{comm=\"%s\"} %" PRIu64 "\n", name, text, sum);
}

static void of_cut(FILE *out, const char *name, const struct cut_stats *s, const char *more,
		   double value)
{
	char comm[40];

	fprintf(out, "%s{comm=\"%s\"%s} %.15g\n", name, label(s->comm, comm), more, value);
}

static void write_cuts(const struct model *m, FILE *out)
{
	head(out, "icpbpf_checkpoint_pause_seconds", "histogram",
	     "How long checkpoints stopped the job.");
	vec_each (s, &m->stats)
		write_histogram(out, "icpbpf_checkpoint_pause_seconds", s->comm, n_pause_bounds,
				pause_bounds, &s->pause);
	head(out, "icpbpf_checkpoint_duration_seconds", "histogram",
	     "How long checkpoints took, from the start to the commit.");
	vec_each (s, &m->stats)
		write_histogram(out, "icpbpf_checkpoint_duration_seconds", s->comm,
				n_duration_bounds, duration_bounds, &s->duration);
	head(out, "icpbpf_checkpoint_bytes_total", "counter", "Bytes written by checkpoints.");
	vec_each (s, &m->stats) {
		of_cut(out, "icpbpf_checkpoint_bytes_total", s, ",type=\"full\"",
		       (double)s->bytes_full);
		of_cut(out, "icpbpf_checkpoint_bytes_total", s, ",type=\"incremental\"",
		       (double)s->bytes_incremental);
	}
	head(out, "icpbpf_checkpoints_total", "counter", "Versions that were committed.");
	vec_each (s, &m->stats) {
		of_cut(out, "icpbpf_checkpoints_total", s, ",type=\"full\"", (double)s->full);
		of_cut(out, "icpbpf_checkpoints_total", s, ",type=\"incremental\"",
		       (double)s->incremental);
	}
	head(out, "icpbpf_checkpoint_failures_total", "counter",
	     "Checkpoints that failed or were refused.");
	vec_each (s, &m->stats)
		of_cut(out, "icpbpf_checkpoint_failures_total", s, "", (double)s->failed);
	head(out, "icpbpf_checkpoint_last_success_timestamp_seconds", "gauge",
	     "When the last version was committed.");
	vec_each (s, &m->stats)
		if (s->last_time > 0)
			of_cut(out, "icpbpf_checkpoint_last_success_timestamp_seconds", s, "",
			       s->last_time);
}

static void write_forecasts(const struct model *m, FILE *out)
{
	static const struct {
		const char *name, *help;
	} kinds[] = {
		{"icpbpf_predicted_increment_bytes",
		 "What an increment cut now would write; without a version: one of the "
		 "recommended interval."},
		{"icpbpf_predicted_pause_seconds",
		 "How long a checkpoint cut now would stop the job."},
		{"icpbpf_recommended_interval_seconds",
		 "Between checkpoints, after Young and Daly."},
	};
	double age = model_age(m);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		head(out, kinds[i].name, "gauge", kinds[i].help);
		vec_each (j, &m->jobs) {
			struct forecast f;
			char comm[40];

			forecast_job(m, j, age, &f);
			fprintf(out, "%s{pid=\"%d\",comm=\"%s\"} %.9g\n", kinds[i].name, j->pid,
				label(j->comm, comm),
				i == 0	 ? (double)f.increment_bytes
				: i == 1 ? f.pause_s
					 : f.interval_s);
		}
	}
}

static void single(FILE *out, const char *name, const char *type, const char *help,
		   double value)
{
	head(out, name, type, help);
	fprintf(out, "%s %.15g\n", name, value);
}

static void write_self(const struct model *m, FILE *out)
{
	head(out, "icpbpf_build_info", "gauge", "What runs.");
	fprintf(out, "icpbpf_build_info{version=\"%s\",tracker=\"%s\",events=\"%s\"} 1\n",
		ICP_VERSION, m->info.tracker ? m->info.tracker : "",
		m->info.events ? "yes" : "no");
	single(out, "icpbpf_page_size_bytes", "gauge", "Size of a page.",
	       (double)m->info.page_size);
	single(out, "icpbpf_followed_processes", "gauge", "Processes that are followed.",
	       (double)m->procs.n);
	single(out, "icpbpf_refused_processes", "gauge",
	       "Processes that match and can not be followed.", (double)m->refused.n);
	single(out, "icpbpf_samples_total", "counter", "Samples taken.", (double)m->samples);
	single(out, "icpbpf_sample_interval_seconds", "gauge", "Time between samples.",
	       m->interval_s);
	single(out, "icpbpf_sample_age_seconds", "gauge", "How old the last sample is.",
	       model_age(m));
	single(out, "icpbpf_sampling_active", "gauge",
	       "1: faults come in a storm, and not each is told one by one.",
	       m->untold_now > 0);
	single(out, "process_cpu_seconds_total", "counter",
	       "Processor time of icp-bpf and its helper process.", m->cpu_s);
	single(out, "process_resident_memory_bytes", "gauge",
	       "Memory of icp-bpf and its helper process.", (double)m->rss_bytes);
	single(out, "process_start_time_seconds", "gauge", "When icp-bpf began.",
	       m->start_time);
}

void metrics_write(const struct model *m, FILE *out)
{
	write_self(m, out);
	write_processes(m, out);
	write_segments(m, out);
	write_cuts(m, out);
	write_forecasts(m, out);
}
