// SPDX-License-Identifier: GPL-2.0
#include "track/events.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "icp.skel.h"
#include "track/events_priv.h"
#include "track/last_faults.h"

#define STACK_RING (512u << 10)

struct events {
	struct icp_bpf *skel;
	struct ring_buffer *faults, *changes, *stacks;
	struct event_batch *into; /* set during a drain */
	struct icp_counters *per_cpu;
	int cpus;
	uint32_t missing;
	struct last_faults last;
};

#define PROG(field, tracepoint_, kind_, missing_, purpose_, without_)                          \
	{                                                                                      \
		.prog = offsetof(struct icp_bpf, progs.field),                                 \
		.link = offsetof(struct icp_bpf, links.field), .tracepoint = (tracepoint_),    \
		.name = "raw_tp/" tracepoint_, .purpose = (purpose_), .without = (without_),   \
		.missing = (missing_), .kind = (kind_),                                        \
	}

const struct events_prog events_progs[] = {
	PROG(fault_user, "page_fault_user", PROG_FAULTS, 0,
	     "writes of the process: when, who, where", "no write is seen"),
	PROG(fault_kernel, "page_fault_kernel", PROG_FAULTS, 0,
	     "writes of the kernel for the process (read(2)...)",
	     "read(2) into memory is not seen"),
	PROG(life_fork, "sched_process_fork", PROG_OTHER, 0, "children",
	     "children are not followed"),
	PROG(life_exec, "sched_process_exec", PROG_OTHER, 0, "new programs",
	     "exec is not noticed"),
	PROG(life_exit, "sched_process_exit", PROG_OTHER, 0, "ends", "the end is not noticed"),
	PROG(guard, "mmap_lock_acquire_returned", PROG_OTHER, EVENTS_NO_GUARD,
	     "whether events are complete", "every page is looked at each time"),
	PROG(guard_end, "mmap_lock_released", PROG_OTHER, EVENTS_NO_GUARD,
	     "whether events are complete", "every page is looked at each time"),
	PROG(calls, "sys_exit", PROG_CALLS, EVENTS_NO_CALLS, "mappings and System V segments",
	     "segment events are missing, mappings are re-read each time"),
};
const size_t events_progs_n = sizeof(events_progs) / sizeof(events_progs[0]);

struct bpf_program *events_prog_of(const struct icp_bpf *skel, const struct events_prog *p)
{
	return *(struct bpf_program **)((char *)skel + p->prog);
}

struct bpf_link **events_link_of(struct icp_bpf *skel, const struct events_prog *p)
{
	return (struct bpf_link **)((char *)skel + p->link);
}

static int log_libbpf(enum libbpf_print_level level, const char *fmt, va_list args)
{
	/* not debug(): a verifier log has many lines */
	if (getenv("ICP_DEBUG"))
		vfprintf(stderr, fmt, args);
	return 0;
}

/* How many parameters tracepoint @name has, the hidden first one included; -ENOENT without the
 * tracepoint. */
static int tracepoint_params(const struct btf *btf, const char *name)
{
	char type_name[128];
	const struct btf_type *t;
	int id;

	snprintf(type_name, sizeof(type_name), "btf_trace_%s", name);
	id = btf__find_by_name_kind(btf, type_name, BTF_KIND_TYPEDEF);
	if (id < 0)
		return -ENOENT;
	t = btf__type_by_id(btf, id);
	t = btf__type_by_id(btf, t->type); /* pointer */
	t = t && btf_is_ptr(t) ? btf__type_by_id(btf, t->type) : NULL;
	return t && btf_is_func_proto(t) ? btf_vlen(t) : -ENOENT;
}

int events_object(struct icp_bpf **out, uint32_t *absent)
{
	struct icp_bpf *skel;
	struct btf *btf;

	libbpf_set_print(log_libbpf);
	btf = btf__load_vmlinux_btf();
	if (!btf)
		return fail(-errno, "read the kernel's BTF (/sys/kernel/btf/vmlinux, "
				    "CONFIG_DEBUG_INFO_BTF)");
	skel = icp_bpf__open();
	if (!skel) {
		btf__free(btf);
		return fail(-errno, "open the eBPF object");
	}
	*absent = 0;
	for (size_t i = 0; i < events_progs_n; i++) {
		if (tracepoint_params(btf, events_progs[i].tracepoint) < 0)
			*absent |= 1u << i;
	}
	skel->rodata->mmap_lock_has_path =
		tracepoint_params(btf, "mmap_lock_acquire_returned") == 5;
	btf__free(btf);
	*out = skel;
	return 0;
}

/* Choose the programs, and the sizes of the maps. */
static int configure(struct events *e, const struct events_config *config, uint32_t absent)
{
	struct icp_bpf *skel = e->skel;
	int err = 0;

	for (size_t i = 0; i < events_progs_n; i++) {
		const struct events_prog *p = &events_progs[i];

		if (p->kind == PROG_FAULTS && config->no_faults) {
			bpf_program__set_autoload(events_prog_of(skel, p), false);
			continue;
		}
		if (absent & 1u << i) {
			if (!p->missing)
				return refuse(-EOPNOTSUPP, "this kernel has no tracepoint %s",
					      p->tracepoint);
			e->missing |= p->missing;
		}
		if (p->missing & e->missing)
			bpf_program__set_autoload(events_prog_of(skel, p), false);
	}
	if (config->no_faults)
		err = bpf_map__set_max_entries(skel->maps.faults, getpagesize());
	else if (config->fault_ring_bytes)
		err = bpf_map__set_max_entries(skel->maps.faults, config->fault_ring_bytes);
	if (!err && config->change_ring_bytes)
		err = bpf_map__set_max_entries(skel->maps.changes, config->change_ring_bytes);
	if (!err && config->stack_period_ns)
		err = bpf_map__set_max_entries(skel->maps.stacks, STACK_RING);
	skel->rodata->fault_budget = config->fault_budget;
	skel->rodata->stack_period_ns = config->stack_period_ns;
	if (!err && config->max_targets)
		err = bpf_map__set_max_entries(skel->maps.targets, config->max_targets);
	if (!err && config->max_targets)
		err = bpf_map__set_max_entries(skel->maps.members, config->max_targets);
	return err ? fail(err, "size the eBPF maps") : 0;
}

static int load_once(struct events *e, const struct events_config *config)
{
	uint32_t absent;
	int err;

	err = events_object(&e->skel, &absent);
	if (err)
		return err;
	err = configure(e, config, absent);
	if (err)
		return err;
	err = icp_bpf__load(e->skel);
	return err ? events_refused(err, "load the eBPF programs") : 0;
}

/* Optional programs that this kernel's verifier refuses are left out, so try without them. */
static int load(struct events *e, const struct events_config *config)
{
	static const uint32_t without[] = {0, EVENTS_NO_CALLS, EVENTS_NO_GUARD,
					   EVENTS_NO_CALLS | EVENTS_NO_GUARD};
	int first = 0, err = 0;

	for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
		e->missing = without[i];
		err = load_once(e, config);
		if (!err) {
			err_clear();
			return 0;
		}
		icp_bpf__destroy(take_ptr(e->skel));
		if (!first)
			first = err;
		if (err == -ENOMEM || err == -EOPNOTSUPP)
			break;
	}
	return err;
}

/* Who are we? Asked by a program that runs in our own context. */
static int learn_observer(struct events *e)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int err;

	err = bpf_prog_test_run_opts(bpf_program__fd(e->skel->progs.learn_observer), &opts);
	return err ? events_refused(err, "run the eBPF program learn_observer") : 0;
}

static int attach_one(struct events *e, const struct events_prog *p)
{
	struct bpf_program *prog = events_prog_of(e->skel, p);
	struct bpf_link **link = events_link_of(e->skel, p);

	if (bpf_program__fd(prog) < 0 || *link)
		return 0;
	*link = bpf_program__attach(prog);
	if (*link)
		return 0;
	if (!p->missing)
		return events_refused(-errno, p->name);
	e->missing |= p->missing;
	return 0;
}

static int attach(struct events *e, const struct events_config *config)
{
	int err = 0;

	for (size_t i = 0; i < events_progs_n && !err; i++) {
		if (events_progs[i].kind != PROG_CALLS || !config->no_syscalls)
			err = attach_one(e, &events_progs[i]);
	}
	return err;
}

int events_calls(struct events *e, bool on)
{
	for (size_t i = 0; i < events_progs_n; i++) {
		const struct events_prog *p = &events_progs[i];

		if (p->kind != PROG_CALLS)
			continue;
		if (on) {
			int err = attach_one(e, p);

			if (err)
				return err;
		} else {
			bpf_link__destroy(take_ptr(*events_link_of(e->skel, p)));
		}
	}
	return on && e->missing & EVENTS_NO_CALLS ? -EOPNOTSUPP : 0;
}

static int on_fault(void *ctx, void *data, size_t size)
{
	struct events *e = ctx;
	struct icp_fault *fault = vec_push(&e->into->faults);

	if (!fault)
		return -ENOMEM;
	*fault = *(struct icp_fault *)data;
	return last_faults_note(&e->last, fault);
}

static int on_change(void *ctx, void *data, size_t size)
{
	struct events *e = ctx;
	struct icp_change *change = vec_push(&e->into->changes);

	if (!change)
		return -ENOMEM;
	*change = *(struct icp_change *)data;
	return 0;
}

static int on_stack(void *ctx, void *data, size_t size)
{
	struct events *e = ctx;
	struct icp_stack *stack = vec_push(&e->into->stacks);

	if (!stack)
		return -ENOMEM;
	*stack = *(struct icp_stack *)data;
	return 0;
}

/* Readers of their own, because only the ring of changes may wake. */
static int open_rings(struct events *e)
{
	e->faults = ring_buffer__new(bpf_map__fd(e->skel->maps.faults), on_fault, e, NULL);
	if (!e->faults)
		return fail(-errno, "map the ring of faults");
	e->changes = ring_buffer__new(bpf_map__fd(e->skel->maps.changes), on_change, e, NULL);
	if (!e->changes)
		return fail(-errno, "map the ring of changes");
	if (e->skel->rodata->stack_period_ns)
		e->stacks =
			ring_buffer__new(bpf_map__fd(e->skel->maps.stacks), on_stack, e, NULL);
	if (e->skel->rodata->stack_period_ns && !e->stacks)
		return fail(-errno, "map the ring of stacks");
	e->cpus = libbpf_num_possible_cpus();
	if (e->cpus < 1)
		return fail(-EIO, "count the CPUs");
	e->per_cpu = calloc(e->cpus, sizeof(*e->per_cpu));
	return e->per_cpu ? 0 : fail(-ENOMEM, "counters of %d CPUs", e->cpus);
}

int events_open(const struct events_config *config, struct events **out)
{
	static const struct events_config standard;
	struct events *e;
	int err;

	*out = NULL;
	if (!config)
		config = &standard;
	err = events_allowed();
	if (err)
		return err;
	e = calloc(1, sizeof(*e));
	if (!e)
		return fail(-ENOMEM, "open the events");
	err = load(e, config);
	if (!err)
		err = learn_observer(e);
	if (!err)
		err = open_rings(e);
	if (!err)
		err = attach(e, config);
	if (err) {
		events_close(e);
		return err;
	}
	*out = e;
	return 0;
}

void events_close(struct events *e)
{
	if (!e)
		return;
	ring_buffer__free(e->faults);
	ring_buffer__free(e->changes);
	ring_buffer__free(e->stacks);
	icp_bpf__destroy(e->skel);
	free(e->per_cpu);
	last_faults_free(&e->last);
	free(e);
}

uint32_t events_missing(const struct events *e)
{
	return e->missing;
}

int events_add(struct events *e, pid_t pid, bool children)
{
	struct icp_member member = {.follow = children};
	uint32_t key = pid;
	int err;

	err = bpf_map__update_elem(e->skel->maps.members, &key, sizeof(key), &member,
				   sizeof(member), BPF_ANY);
	if (err == -E2BIG)
		return refuse(-ENOSPC, "more than %u processes are followed",
			      bpf_map__max_entries(e->skel->maps.members));
	if (err)
		return fail(err, "follow pid %d", pid);
	memset(e->per_cpu, 0, e->cpus * sizeof(*e->per_cpu));
	err = bpf_map__update_elem(e->skel->maps.targets, &key, sizeof(key), e->per_cpu,
				   e->cpus * sizeof(*e->per_cpu), BPF_NOEXIST);
	if (err && err != -EEXIST) { /* it was followed already, then it keeps its counters */
		bpf_map__delete_elem(e->skel->maps.members, &key, sizeof(key), 0);
		return fail(err, "follow pid %d", pid);
	}
	return 0;
}

void events_del(struct events *e, pid_t pid)
{
	uint32_t key = pid;

	bpf_map__delete_elem(e->skel->maps.targets, &key, sizeof(key), 0);
	bpf_map__delete_elem(e->skel->maps.members, &key, sizeof(key), 0);
}

int events_fd(const struct events *e)
{
	return ring_buffer__epoll_fd(e->changes);
}

int events_drain(struct events *e, struct event_batch *batch)
{
	int err;

	/* faults first: then the fork that a fault's process came from is in this batch or in
	 * an earlier one */
	e->into = batch;
	err = ring_buffer__consume(e->faults);
	if (err >= 0)
		err = ring_buffer__consume(e->changes);
	if (err >= 0 && e->stacks)
		err = ring_buffer__consume(e->stacks);
	e->into = NULL;
	return err < 0 ? fail(err, "read the events") : 0;
}

void event_batch_free(struct event_batch *batch)
{
	vec_free(&batch->faults);
	vec_free(&batch->changes);
	vec_free(&batch->stacks);
}

int events_counters(const struct events *e, pid_t pid, struct icp_counters *out)
{
	struct icp_member member;
	uint32_t key = pid;

	if (bpf_map__lookup_elem(e->skel->maps.targets, &key, sizeof(key), e->per_cpu,
				 e->cpus * sizeof(*e->per_cpu), 0))
		return -ENOENT;
	if (bpf_map__lookup_elem(e->skel->maps.members, &key, sizeof(key), &member,
				 sizeof(member), 0))
		return -ENOENT;
	memset(out, 0, sizeof(*out));
	for (int cpu = 0; cpu < e->cpus; cpu++) {
		const struct icp_counters *c = &e->per_cpu[cpu];

		out->faults_user += c->faults_user;
		out->faults_kernel += c->faults_kernel;
		out->lost_faults += c->lost_faults;
		out->lost_changes += c->lost_changes;
		out->read_locks += c->read_locks;
		out->write_locks += c->write_locks;
		out->own_locks += c->own_locks;
		out->readers_in += c->readers_in;
		out->readers_out += c->readers_out;
		out->hard_locks += c->hard_locks;
		out->untold += c->untold;
	}
	out->follow = member.follow;
	return 0;
}

int events_last_faults(const struct events *e, pid_t pid, struct fault_addresses *out)
{
	return last_faults_of(&e->last, pid, out);
}
