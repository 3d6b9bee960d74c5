// SPDX-License-Identifier: GPL-2.0
/* What of eBPF works here, found by doing it. */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "track/events_priv.h"
#include "icp.skel.h"

/* Load and attach program @i alone. 0, or a negative errno and the reason in @h. */
static int probe_prog(size_t i, struct hook_status *h)
{
	const struct events_prog *p = &events_progs[i];
	struct bpf_program *prog;
	struct bpf_link *link;
	struct icp_bpf *skel;
	uint32_t absent;
	int err;

	err = events_object(&skel, &absent);
	if (err) {
		snprintf(h->why, sizeof(h->why), "%s", err_text(err));
		return err;
	}
	if (absent & 1u << i) {
		snprintf(h->why, sizeof(h->why), "this kernel has no such tracepoint: %s",
			 p->without);
		icp_bpf__destroy(skel);
		return -ENOENT;
	}
	for (size_t k = 0; k < events_progs_n; k++)
		bpf_program__set_autoload(events_prog_of(skel, &events_progs[k]), k == i);
	bpf_program__set_autoload(skel->progs.learn_observer, false);
	bpf_map__set_max_entries(skel->maps.faults, getpagesize());
	bpf_map__set_max_entries(skel->maps.changes, getpagesize());
	bpf_map__set_max_entries(skel->maps.targets, 1);
	bpf_map__set_max_entries(skel->maps.members, 1);
	err = icp_bpf__load(skel);
	if (err) {
		snprintf(h->why, sizeof(h->why), "loading fails: %s; ICP_DEBUG=1 shows the log",
			 strerror(-err));
		icp_bpf__destroy(skel);
		return err;
	}
	prog = events_prog_of(skel, p);
	link = bpf_program__attach(prog);
	if (!link) {
		err = -errno;
		snprintf(h->why, sizeof(h->why), "attaching fails: %s: %s", strerror(-err),
			 p->without);
	}
	bpf_link__destroy(link);
	icp_bpf__destroy(skel);
	return err;
}

/* fentry is loaded and attached to a function that is hardly called, by a program of two
 * instructions. */
static void probe_fentry(struct hook_status *h)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_FENTRY);
	int id, prog, link = -1;

	id = libbpf_find_vmlinux_btf_id("handle_mm_fault", BPF_TRACE_FENTRY);
	if (id < 0) {
		snprintf(h->why, sizeof(h->why),
			 "the kernel's BTF has no handle_mm_fault; not needed");
		return;
	}
	opts.attach_btf_id = id;
	prog = bpf_prog_load(BPF_PROG_TYPE_TRACING, "icp_probe", "GPL", insns, 2, &opts);
	if (prog >= 0)
		link = bpf_raw_tracepoint_open(NULL, prog);
	h->available = link >= 0;
	if (!h->available)
		snprintf(h->why, sizeof(h->why), "%s fails: %s; not needed",
			 prog < 0 ? "loading" : "attaching", strerror(errno));
	if (link >= 0)
		close(link);
	if (prog >= 0)
		close(prog);
}

static void probe_kprobe(struct hook_status *h)
{
	h->available = !access("/sys/bus/event_source/devices/kprobe/type", R_OK);
	if (!h->available)
		snprintf(h->why, sizeof(h->why),
			 "the kernel has no kprobes (CONFIG_KPROBE_EVENTS); not needed");
}

static void probe_tracefs(struct hook_status *h)
{
	struct statfs fs;

	h->available =
		(!statfs("/sys/kernel/tracing", &fs) && fs.f_type == TRACEFS_MAGIC) ||
		(!statfs("/sys/kernel/debug/tracing", &fs) && fs.f_type == TRACEFS_MAGIC);
	if (!h->available)
		snprintf(h->why, sizeof(h->why),
			 "not mounted (mount -t tracefs tracefs /sys/kernel/tracing); not "
			 "needed");
}

static const struct {
	const char *name, *purpose;
	void (*probe)(struct hook_status *h);
} extras[] = {
	{"fentry/handle_mm_fault", "optional: not used yet", probe_fentry},
	{"kprobe", "optional: not used yet", probe_kprobe},
	{"tracefs", "optional: not used yet", probe_tracefs},
};

int events_hooks(struct hook_status **out, size_t *n)
{
	size_t n_extras = sizeof(extras) / sizeof(extras[0]);
	struct hook_status *hooks;
	int allowed;

	hooks = calloc(events_progs_n + n_extras, sizeof(*hooks));
	if (!hooks)
		return fail(-ENOMEM, "probe the eBPF hooks");
	allowed = events_allowed();
	for (size_t i = 0; i < events_progs_n + n_extras; i++) {
		struct hook_status *h = &hooks[i];
		bool program = i < events_progs_n;

		h->name = program ? events_progs[i].name : extras[i - events_progs_n].name;
		h->purpose =
			program ? events_progs[i].purpose : extras[i - events_progs_n].purpose;
		h->required = program && !events_progs[i].missing;
		if (program && allowed)
			snprintf(h->why, sizeof(h->why), "%s", err_text(allowed));
		else if (program)
			h->available = !probe_prog(i, h);
		else
			extras[i - events_progs_n].probe(h);
	}
	err_clear();
	*out = hooks;
	*n = events_progs_n + n_extras;
	return 0;
}
