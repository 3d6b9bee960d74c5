// SPDX-License-Identifier: GPL-2.0
#include "track/undo.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../bpf/icp_undo.h"
#include "base/io.h"
#include "track/events_priv.h"
#include "undo.skel.h"

struct undo {
	struct undo_bpf *skel;
	struct bpf_link *link;
};

static void cleanup_undo(struct undo **u)
{
	if (!*u)
		return;
	bpf_link__destroy((*u)->link);
	undo_bpf__destroy((*u)->skel);
	free(*u);
}

int undo_get(struct undo **out)
{
	static struct undo *loaded;
	_cleanup_(cleanup_undo) struct undo *u = NULL;
	int err = loaded ? 0 : events_allowed();
	struct stat ns;

	*out = loaded;
	if (loaded || err)
		return err;
	/* PROC_PID_INIT_INO: eBPF sees the ids of the initial pid namespace */
	if (stat("/proc/self/ns/pid", &ns) || ns.st_ino != 0xeffffffcu)
		return refuse(-EOPNOTSUPP, "SEM_UNDO adjustments can only be read from the "
					   "initial pid namespace");
	u = calloc(1, sizeof(*u));
	if (!u)
		return fail(-ENOMEM, "read SEM_UNDO adjustments");
	u->skel = undo_bpf__open_and_load();
	if (!u->skel)
		return events_refused(-errno, "load the program that reads SEM_UNDO");
	u->link = bpf_program__attach_iter(u->skel->progs.sem_undos, NULL);
	if (!u->link)
		return fail(-errno, "attach the program that reads SEM_UNDO");
	*out = loaded = take_ptr(u);
	return 0;
}

static int run(struct undo *u)
{
	_cleanup_fd_ int fd = bpf_iter_create(bpf_link__fd(u->link));
	_cleanup_free_ char *text = NULL;
	int err = fd < 0 ? fd : io_read_all(fd, &text, NULL);

	return err ? fail(err, "read SEM_UNDO adjustments") : 0;
}

static int take_values(struct undo *u, undo_values *out)
{
	int map = bpf_map__fd(u->skel->maps.values), value;
	struct icp_undo_key key, next, *at = NULL;

	while (!bpf_map_get_next_key(map, at, &next)) {
		struct undo_value *v = vec_push(out);

		key = next;
		at = &key;
		if (!v || bpf_map_lookup_elem(map, &key, &value))
			return fail(v ? -EIO : -ENOMEM, "SEM_UNDO adjustments");
		*v = (struct undo_value){key.tgid, key.semid, key.num, value};
	}
	return 0;
}

static void forget(struct undo *u)
{
	int map = bpf_map__fd(u->skel->maps.values);
	struct icp_undo_key key;

	while (!bpf_map_get_next_key(map, NULL, &key))
		bpf_map_delete_elem(map, &key);
}

int undo_read(struct undo *u, const struct undo_set *sets, size_t n, undo_values *out)
{
	int map = bpf_map__fd(u->skel->maps.sets), err;

	out->n = 0;
	u->skel->bss->lost = 0;
	forget(u);
	for (size_t i = 0; i < n; i++)
		if (bpf_map_update_elem(map, &sets[i].semid, &sets[i].n, BPF_ANY))
			return fail(-errno, "read SEM_UNDO adjustments");
	err = run(u);
	if (!err && u->skel->bss->lost)
		err = refuse(-EOVERFLOW, "there are too many SEM_UNDO adjustments to read");
	return err ? err : take_values(u, out);
}
