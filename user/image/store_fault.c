// SPDX-License-Identifier: GPL-2.0
/* A store that fails, or dies, at a chosen operation: how the rest is shown to survive that. */
#include "image/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FAULT_EXIT 111

struct fault_store {
	struct store base;
	struct store *inner;
	struct store_fault fault;
	uint64_t seen;
};

struct fault_put {
	struct store_put base;
	struct store_put *inner;
};

struct fault_obj {
	struct store_obj base;
	struct store_obj *inner;
};

static struct fault_store *of(struct store *s)
{
	return (struct fault_store *)s;
}

/* Whether the operation that begins now is the one. Dying ones do not return unless @torn wants
 * to do half of it first. */
static int strike(struct store *store, const char *what, bool torn)
{
	struct fault_store *s = of(store);
	uint64_t now = __atomic_add_fetch(&s->seen, 1, __ATOMIC_RELAXED);

	if (s->fault.count)
		*s->fault.count = now;
	if (now != s->fault.nth && !(s->fault.sticky && now > s->fault.nth && s->fault.nth))
		return 0;
	if (!s->fault.err && !torn)
		_exit(FAULT_EXIT);
	if (!s->fault.err)
		return 1;
	return fail(-s->fault.err, "injected fault %llu: %s", (unsigned long long)now, what);
}

static int fault_put_open(struct store *s, const char *name, struct store_put **out)
{
	struct fault_put *p;
	int err = strike(s, name, false);

	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return fail(-ENOMEM, "create %s", name);
	p->base.store = s;
	err = store_put_open(of(s)->inner, name, &p->inner);
	if (err)
		free(p);
	else
		*out = &p->base;
	return err;
}

static int fault_put_write(struct store_put *put, const struct iovec *iov, int n)
{
	struct fault_put *p = (struct fault_put *)put;
	int hit = strike(put->store, "write", true), err;
	struct iovec half = *iov;

	if (!hit)
		return store_put_write(p->inner, iov, n);
	half.iov_len /= 2;
	err = store_put_write(p->inner, &half, 1); /* what a full disk does: a part fits */
	if (hit > 0)
		_exit(FAULT_EXIT);
	return err ? err : hit;
}

static int fault_put_finish(struct store_put *put)
{
	struct fault_put *p = (struct fault_put *)put;
	int hit = strike(put->store, "sync", false);
	int err = store_put_finish(p->inner);

	free(p);
	return hit ? hit : err;
}

static void fault_put_cancel(struct store_put *put)
{
	struct fault_put *p = (struct fault_put *)put;

	store_put_cancel(p->inner);
	free(p);
}

static int fault_create(struct store *s, const char *name, const void *data, size_t len)
{
	int err = strike(s, name, false), late;

	if (err)
		return err;
	err = store_create(of(s)->inner, name, data, len);
	late = strike(s, "sync of a record that is there", false);
	return err ? err : late;
}

static int fault_open(struct store *s, const char *name, struct store_obj **out)
{
	struct fault_obj *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return fail(-ENOMEM, "open %s", name);
	o->base.store = s;
	err = store_open(of(s)->inner, name, &o->inner);
	if (err) {
		free(o);
		return err;
	}
	o->base.size = o->inner->size;
	*out = &o->base;
	return 0;
}

static int fault_read(struct store_obj *o, const struct iovec *iov, int n, uint64_t at)
{
	return store_readv(((struct fault_obj *)o)->inner, iov, n, at);
}

static void fault_obj_close(struct store_obj *o)
{
	store_obj_close(((struct fault_obj *)o)->inner);
	free(o);
}

static int fault_list(struct store *s, const char *prefix, struct store_list *out)
{
	return store_list(of(s)->inner, prefix, out);
}

static int fault_remove(struct store *s, const char *name)
{
	int err = strike(s, name, false);

	return err ? err : store_remove(of(s)->inner, name);
}

static int fault_make_prefix(struct store *s, const char *name)
{
	int err = strike(s, name, false);

	return err ? err : store_make_prefix(of(s)->inner, name);
}

static int fault_remove_prefix(struct store *s, const char *name)
{
	int err = strike(s, name, false);

	return err ? err : store_remove_prefix(of(s)->inner, name);
}

static int fault_sync(struct store *s, const char *prefix)
{
	int err = strike(s, "sync", false);

	return err ? err : store_sync(of(s)->inner, prefix);
}

static int fault_lock(struct store *s, const char *name)
{
	int err = strike(s, name, false);

	return err ? err : store_lock(of(s)->inner, name);
}

static void fault_close(struct store *s)
{
	store_close(of(s)->inner);
	free(s);
}

static const struct store_ops fault_ops = {
	.name = "fault",
	.put_open = fault_put_open,
	.put_write = fault_put_write,
	.put_finish = fault_put_finish,
	.put_cancel = fault_put_cancel,
	.create = fault_create,
	.open = fault_open,
	.read = fault_read,
	.obj_close = fault_obj_close,
	.list = fault_list,
	.remove = fault_remove,
	.make_prefix = fault_make_prefix,
	.remove_prefix = fault_remove_prefix,
	.sync = fault_sync,
	.lock = fault_lock,
	.close = fault_close,
};

int store_fault_wrap(struct store *inner, const struct store_fault *fault, struct store **out)
{
	struct fault_store *s = calloc(1, sizeof(*s));

	if (!s) {
		store_close(inner);
		return fail(-ENOMEM, "wrap the store");
	}
	s->base.ops = &fault_ops;
	s->inner = inner;
	s->fault = *fault;
	*out = &s->base;
	return 0;
}

int store_fault_env(struct store *inner, struct store **out)
{
	const char *text = getenv("ICP_FAULT");
	struct store_fault fault = {0};
	char *end;

	*out = inner;
	if (!text)
		return 0;
	fault.nth = strtoull(text, &end, 10);
	if (!strncmp(end, ":EIO", 4))
		fault.err = EIO;
	else if (!strncmp(end, ":ENOSPC", 7))
		fault.err = ENOSPC;
	else if (strncmp(end, ":kill", 5)) {
		store_close(inner);
		return refuse(-EINVAL,
			      "ICP_FAULT=%s: use NTH:EIO, NTH:ENOSPC or NTH:kill, then "
			      "perhaps :sticky",
			      text);
	}
	fault.sticky = strstr(end, ":sticky");
	return store_fault_wrap(inner, &fault, out);
}
