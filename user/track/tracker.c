// SPDX-License-Identifier: GPL-2.0
#include "track/tracker.h"

#include <errno.h>
#include <stdlib.h>

const struct tracker_ops *const tracker_backends[] = {&tracker_uffd, &tracker_kmod,
						      &tracker_softdirty, NULL};

static const struct tracker_ops *find(const char *name)
{
	for (size_t i = 0; tracker_backends[i]; i++)
		if (!strcmp(tracker_backends[i]->name, name))
			return tracker_backends[i];
	return NULL;
}

/* The first that works here; *@why tells about the best one that doesn't. */
static const struct tracker_ops *best(char *why, size_t len)
{
	for (size_t i = 0; tracker_backends[i]; i++) {
		char text[200];

		if (!tracker_backends[i]->probe(text, sizeof(text)))
			return tracker_backends[i];
		if (!i)
			snprintf(why, len, "%s", text);
	}
	return NULL;
}

int tracker_choose(const char *name, const struct tracker_ops **out)
{
	char why[200] = "";
	const struct tracker_ops *ops;
	int err;

	name = name ? name : getenv("ICP_TRACKER");
	ops = name ? find(name) : best(why, sizeof(why));
	if (!ops && name)
		return refuse(-EINVAL, "no tracker is called '%s': see icp-bpf check", name);
	if (!ops)
		return refuse(-EOPNOTSUPP,
			      "no write tracker works here (%s): see icp-bpf check", why);
	err = name ? ops->probe(why, sizeof(why)) : 0;
	if (err)
		return refuse(err, "tracker %s does not work here: %s", name, why);
	*out = ops;
	return 0;
}

int tracker_open(const char *name, struct target *target, struct warden *warden,
		 bool count_present, struct tracker **out)
{
	const struct tracker_ops *ops;
	int err = tracker_choose(name, &ops);

	if (err)
		return err;
	err = ops->open(target, warden, count_present, out);
	return err == -ESRCH ? refuse(err, "pid %d ended while attaching", target->pid) : err;
}

int tracker_take(struct tracker *t, const struct maps *maps, struct dirty *out)
{
	dirty_clear(out);
	out->epoch = ++t->epoch;
	return t->ops->take(t, maps, out);
}

int tracker_take_ranges(struct tracker *t, const struct maps *maps, const struct dirty *where,
			struct dirty *out)
{
	dirty_clear(out);
	out->epoch = ++t->epoch;
	return t->ops->take_ranges(t, maps, where, out);
}

int tracker_follow(struct tracker *t, const struct maps *maps)
{
	return t->ops->follow(t, maps);
}

void tracker_close(struct tracker *t)
{
	if (t)
		t->ops->close(t);
}
