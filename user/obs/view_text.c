// SPDX-License-Identifier: GPL-2.0
#include "obs/view.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

const char *human_bytes(double bytes, char buf[16])
{
	static const char units[] = "BKMGTPE";
	size_t i = 0;

	for (; bytes >= 1023.95 && i + 2 < sizeof(units); i++)
		bytes /= 1024;
	snprintf(buf, 16, i ? "%.1f%c" : "%.0f%c", bytes, units[i]);
	return buf;
}

const char *human_count(uint64_t n, char buf[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, n), out = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			buf[out++] = ',';
		buf[out++] = digits[i];
	}
	buf[out] = 0;
	return buf;
}

static const char *clock_text(double time, char buf[32], bool fraction)
{
	time_t seconds = (time_t)time;
	struct tm tm;
	size_t used;

	localtime_r(&seconds, &tm);
	used = strftime(buf, 32, "%H:%M:%S", &tm);
	if (fraction)
		snprintf(buf + used, 32 - used, ".%06u",
			 (unsigned)((time - (double)seconds) * 1e6));
	return buf;
}

int view_flush(const struct view *v)
{
	int err;

	/* what could not be written is still in the buffer, so it fails again now, for the same reason */
	errno = 0;
	if (!fflush(v->out) && !ferror(v->out))
		return 0;
	err = errno ? -errno : -EIO;
	return err == -EPIPE ? err : fail(err, "write the output");
}

static int start(const struct view *v, const struct trace_info *info, const pid_t *pids,
		 size_t n)
{
	fprintf(v->out, "tracing pid");
	for (size_t i = 0; i < n; i++)
		fprintf(v->out, "%s%d", i ? ", " : " ", pids[i]);
	fprintf(v->out,
		" with the %s tracker, pages of %s, a sample every %g s; Ctrl-C ends it\n",
		info->tracker, human_bytes((double)info->page_size, (char[16]){0}),
		info->interval_s);
	if (!info->events)
		fprintf(v->out,
			"no events: who writes, faults and segment events are not shown (%s)\n",
			info->no_events);
	return view_flush(v);
}

static void show_vmas(const struct view *v, const struct process_sample *p)
{
	if (!p->vmas.n)
		return;
	fprintf(v->out, "  %10s  %6s  %-31s  %s\n", "dirty", "share", "range", "memory");
	vec_each (vma, &p->vmas) {
		char range[48];

		snprintf(range, sizeof(range), "%012" PRIx64 "-%012" PRIx64, vma->start,
			 vma->end);
		fprintf(v->out, "  %10s  %5.1f%%  %-31s  %s\n",
			human_count(vma->dirty_pages, (char[32]){0}),
			p->dirty_pages
				? 100.0 * (double)vma->dirty_pages / (double)p->dirty_pages
				: 0.0,
			range, vma->name);
	}
	if (p->vmas_written > p->vmas.n)
		fprintf(v->out, "  %10s  in %zu more\n", "", p->vmas_written - p->vmas.n);
}

static void show_segments(const struct view *v, const struct process_sample *p)
{
	vec_each (seg, &p->segments) {
		fprintf(v->out,
			"  segment key 0x%08x id %d size %s dirty %s (all traced: %s) attached "
			"%" PRIu64 " (pid",
			(unsigned)seg->key, seg->id,
			human_bytes((double)seg->size, (char[16]){0}),
			human_count(seg->dirty_pages, (char[32]){0}),
			human_count(seg->dirty_pages_all, (char[32]){0}), seg->attach_count);
		vec_each (pid, &seg->pids)
			fprintf(v->out, " %d", *pid);
		fprintf(v->out, ")\n");
	}
}

static void show_writers(const struct view *v, const struct process_sample *p)
{
	if (!p->writers.n)
		return;
	fprintf(v->out, "  %10s  %7s  %-15s  %s\n", "faults", "thread", "name", "function");
	vec_each (w, &p->writers) {
		fprintf(v->out, "  %10s  %7d  %-15s  %s%s\n",
			human_count(w->faults, (char[32]){0}), w->tid, w->comm, w->function,
			w->kernel_faults * 2 > w->faults ? " (kernel)" : "");
	}
	if (p->writers_seen > p->writers.n)
		fprintf(v->out, "  %10s  in %zu more\n", "", p->writers_seen - p->writers.n);
}

static void show_process(const struct view *v, const struct trace_info *info,
			 const struct sample *s, const struct process_sample *p)
{
	char wws[WINDOWS][16];

	for (size_t i = 0; i < WINDOWS; i++)
		human_bytes((double)(p->wws_pages[i] * info->page_size), wws[i]);
	fprintf(v->out, "%s  %d %s  dirty %s pages  %s/s  wws 1s %s 10s %s 60s %s",
		clock_text(s->time, (char[32]){0}, false), p->pid, p->comm,
		human_count(p->dirty_pages, (char[32]){0}),
		human_bytes(p->dirty_bytes_per_s, (char[16]){0}), wws[0], wws[1], wws[2]);
	if (info->events)
		fprintf(v->out, "  faults %s/s  lost %" PRIu64,
			human_count(
				p->interval_s > 0
					? (uint64_t)((double)p->faults / p->interval_s + 0.5)
					: 0,
				(char[32]){0}),
			p->lost_events);
	if (p->unknown_pages)
		fprintf(v->out, "  untracked %s", human_count(p->unknown_pages, (char[32]){0}));
	fprintf(v->out, "%s\n", p->ended ? "  ended" : "");
	show_vmas(v, p);
	show_segments(v, p);
	show_writers(v, p);
}

/* On a terminal the frame is built first and cut to what fits, so that it can be redrawn without scrolling. */
static int draw_frame(const struct view *v, const struct trace_info *info,
		      const struct sample *s)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	struct view frame = {.out = open_memstream(&text, &len)};
	int rows = 1;

	if (!frame.out)
		return -ENOMEM;
	vec_each (p, &s->processes)
		show_process(&frame, info, s, p);
	fclose(frame.out);
	fputs("\033[H\033[J", v->out);
	for (char *line = text, *end; line < text + len && (!v->rows || rows < v->rows);
	     line = end + 1, rows++) {
		end = strchr(line, '\n');
		fprintf(v->out, "%.*s\r\n", (int)(end - line), line);
	}
	return view_flush(v);
}

static int show_sample(const struct view *v, const struct trace_info *info,
		       const struct sample *s)
{
	if (v->redraw)
		return draw_frame(v, info, s);
	vec_each (p, &s->processes)
		show_process(v, info, s, p);
	return view_flush(v);
}

static void show_segment_event(const struct view *v, const struct trace_event *e)
{
	fprintf(v->out, " segment %s key 0x%08x id %d size %" PRIu64, e->op, (unsigned)e->key,
		e->id, e->size);
	if (e->addr)
		fprintf(v->out, " at %#" PRIx64, e->addr);
	fprintf(v->out, " attached %" PRIu64, e->attach_count);
	if (e->implied)
		fprintf(v->out, " (by %s)", e->implied);
}

static int show_event(const struct view *v, const struct trace_event *e)
{
	fprintf(v->out, "%s %d/%d", clock_text(e->time, (char[32]){0}, true), e->pid, e->tid);
	switch (e->kind) {
	case TRACE_WRITE:
		fprintf(v->out, " write %#" PRIx64 " in %s by %s at %#" PRIx64 " (%s)", e->addr,
			e->vma, e->kernel ? "the kernel" : "user", e->ip, e->function);
		break;
	case TRACE_SEGMENT:
		show_segment_event(v, e);
		break;
	case TRACE_PROCESS:
		fprintf(v->out, " %s", e->op);
		if (!strcmp(e->op, "fork"))
			fprintf(v->out, " %d", e->id);
		break;
	}
	fputc('\n', v->out);
	return ferror(v->out) ? view_flush(v) : 0;
}

static int show_summary(const struct view *v, const struct trace_info *info,
			const struct summary *s)
{
	if (v->redraw)
		fputc('\n', v->out);
	fprintf(v->out,
		"--- %.1f s, ended by %s; icp-bpf itself used %.1f %% of one processor\n",
		s->seconds, s->reason,
		s->seconds > 0 ? (double)s->cpu_us / 1e4 / s->seconds : 0.0);
	vec_each (t, &s->processes) {
		double rate = t->seconds > 0
				      ? (double)(t->dirty_pages * info->page_size) / t->seconds
				      : 0;

		fprintf(v->out,
			"pid %d %s%s: %" PRIu64
			" samples, mean %s/s, peak %s/s, %s written at least once",
			t->pid, t->comm, t->ended ? " (ended)" : "", t->samples,
			human_bytes(rate, (char[16]){0}),
			human_bytes(t->peak_bytes_per_s, (char[16]){0}),
			human_bytes((double)(t->unique_pages * info->page_size),
				    (char[16]){0}));
		if (info->events)
			fprintf(v->out, ", %s faults (%s by the kernel), %s events lost",
				human_count(t->faults, (char[32]){0}),
				human_count(t->kernel_faults, (char[32]){0}),
				human_count(t->lost_events, (char[32]){0}));
		fprintf(v->out, "; attaching stopped it for %.2f ms\n", t->stopped_s * 1e3);
	}
	return view_flush(v);
}

const struct view_ops view_text = {
	.start = start,
	.sample = show_sample,
	.event = show_event,
	.summary = show_summary,
};
