// SPDX-License-Identifier: GPL-2.0
/* The manifest of the version. Everything in it is malloc'ed, as manifest_free() expects. */
#include "dump/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return fail(-ENOMEM, "manifest");
	if (*field && *field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
	return 0;
}

/* Room for one more pointer in a repeated field. */
static int grow(void *list, size_t n)
{
	void **grown = reallocarray(*(void ***)list, n + 1, sizeof(void *));

	if (!grown)
		return fail(-ENOMEM, "manifest");
	*(void ***)list = grown;
	return 0;
}

int describe_job(struct dump *d)
{
	Icp__Manifest *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return fail(-ENOMEM, "manifest");
	icp__manifest__init(m);
	d->manifest = m;
	m->job = calloc(1, sizeof(*m->job));
	if (!m->job)
		return fail(-ENOMEM, "manifest");
	icp__job__init(m->job);
	m->job->roots =
		calloc(d->config.n_roots ? d->config.n_roots : 1, sizeof(*m->job->roots));
	if (!m->job->roots)
		return fail(-ENOMEM, "manifest");
	for (size_t i = 0; i < d->config.n_roots; i++)
		m->job->roots[i] = (uint32_t)d->config.roots[i];
	m->job->n_roots = d->config.n_roots;
	err = state_fill_machine(m);
	if (!err)
		err = set_text(&m->tool_version, ICP_VERSION);
	return err ? err : set_text(&m->job->label, d->config.label ? d->config.label : "");
}

/* One more process of the manifest, which owns it. */
static int add_process(Icp__Manifest *m, Icp__Process **out)
{
	Icp__Process *image = NULL;
	int err = grow(&m->processes, m->n_processes);

	if (err)
		return err;
	image = calloc(1, sizeof(*image));
	if (!image)
		return fail(-ENOMEM, "manifest");
	icp__process__init(image);
	*out = m->processes[m->n_processes++] = image;
	return 0;
}

int describe_begin(struct dump *d, struct dump_proc *p)
{
	Icp__Process *image = NULL;
	int err = add_process(d->manifest, &image);

	if (err)
		return err;
	image->pid = (uint32_t)p->src.target->pid;
	image->start_time = p->src.target->start_time;
	p->state.target = p->src.target;
	p->state.warden = d->config.warden;
	p->state.job = d->state;
	p->state.image = image;
	err = maps_read(p->src.target, &p->state.maps);
	if (!err && !d->config.no_restart)
		err = state_check(&p->state);
	if (!err)
		err = state_prepare(&p->state);
	maps_free(&p->state.maps);
	return err;
}

/* Those that ended before the freeze are not part of it. */
static void drop_gone(struct dump *d)
{
	Icp__Manifest *m = d->manifest;
	size_t kept = 0;

	for (size_t i = 0; i < m->n_processes; i++) {
		bool gone = true;

		for (size_t k = 0; k < d->procs.n; k++)
			if (d->procs.data[k]->state.image == m->processes[i] &&
			    !d->procs.data[k]->gone)
				gone = false;
		if (gone && !m->processes[i]->no_memory)
			icp__process__free_unpacked(m->processes[i], NULL);
		else
			m->processes[kept++] = m->processes[i];
	}
	m->n_processes = kept;
}

static int describe_zombie(struct dump *d, pid_t pid)
{
	Icp__Process *image = NULL;
	int err = add_process(d->manifest, &image);

	return err ? err : state_zombie(pid, image);
}

static bool is_described(const struct dump *d, pid_t pid)
{
	vec_each (p, &d->procs)
		if ((*p)->src.target->pid == pid && !(*p)->gone)
			return true;
	for (size_t i = 0; i < d->manifest->n_processes; i++)
		if (d->manifest->processes[i]->no_memory &&
		    d->manifest->processes[i]->pid == (uint32_t)pid)
			return true;
	return false;
}

/* Frozen: none of them can be waited for now. */
int describe_zombies(struct dump *d)
{
	_cleanup_(free_pids) pid_list tree = {0};
	int err = 0;

	for (size_t i = 0; i < d->config.n_roots && !err; i++) {
		err = tasks_descendants(d->config.roots[i], &tree);
		for (size_t k = 0; k < tree.n && !err; k++)
			if (tasks_state(tree.data[k]) == 'Z' && !is_described(d, tree.data[k]))
				err = describe_zombie(d, tree.data[k]);
	}
	return err;
}

static int add_segment(struct dump *d, const struct dump_segment *s)
{
	Icp__Manifest *m = d->manifest;
	Icp__Segment *image;
	int err = grow(&m->segments, m->n_segments);

	if (err)
		return err;
	image = calloc(1, sizeof(*image));
	if (!image)
		return fail(-ENOMEM, "manifest");
	icp__segment__init(image);
	m->segments[m->n_segments++] = image;
	state_fill_segment(&s->info, image);
	image->shmid = (uint32_t)s->shmid;
	image->size = s->size;
	image->pages = ctl_pages(s->stream.ctl);
	image->zero_pages = ctl_zeros(s->stream.ctl);
	return 0;
}

static int describe_numbers(struct dump *d)
{
	Icp__Job *job = d->manifest->job;
	int err = set_text(&job->tracker, d->result.tracker ? d->result.tracker : "");

	if (!err)
		err = set_text(&job->found_by, d->result.found_by ? d->result.found_by : "");
	job->pause_ns = d->result.pause_ns;
	job->total_ns = d->result.total_ns;
	job->precopy_rounds = d->result.precopy_rounds;
	job->pages = d->result.pages;
	job->zero_pages = d->result.zero_pages;
	job->bytes_written = d->result.bytes_written;
	job->incremental = d->result.incremental;
	return err;
}

int describe_end(struct dump *d)
{
	int err = 0;

	drop_gone(d);
	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (p->gone)
			continue;
		p->state.image->pages = ctl_pages(p->stream.ctl);
		p->state.image->zero_pages = ctl_zeros(p->stream.ctl);
		p->state.maps = p->maps;
		err = state_finish(&p->state);
		p->state.maps = (struct maps){0};
	}
	if (!err)
		err = state_job_finish(d->state, d->manifest);
	for (size_t i = 0; !err && i < d->segments.n; i++)
		err = add_segment(d, d->segments.data[i]);
	if (!err)
		err = contents_describe(d);
	if (!err && !d->config.no_restart)
		err = state_restorable(d->manifest);
	return err ? err : describe_numbers(d);
}

const Icp__Process *parent_process(const struct dump *d, const struct target *t)
{
	bool same_boot = d->parent && !strcmp(d->parent->boot_id, d->manifest->boot_id);
	struct state_origin origin;

	for (size_t i = 0; same_boot && i < d->parent->n_processes; i++) {
		const Icp__Process *p = d->parent->processes[i];

		if (p->pid == (uint32_t)t->pid && p->start_time == t->start_time)
			return p;
	}
	if (!d->parent || !state_origin_read(t, &origin))
		return NULL;
	for (size_t i = 0; i < d->parent->n_processes; i++)
		if (state_origin_is(&origin, d->parent->processes[i]))
			return d->parent->processes[i];
	return NULL;
}

const Icp__Segment *parent_segment(const struct dump *d, int shmid)
{
	if (!d->parent || strcmp(d->parent->boot_id, d->manifest->boot_id))
		return NULL;
	for (size_t i = 0; i < d->parent->n_segments; i++)
		if (d->parent->segments[i]->shmid == (uint32_t)shmid)
			return d->parent->segments[i];
	return NULL;
}
