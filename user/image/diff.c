// SPDX-License-Identifier: GPL-2.0
#include <errno.h>

#include "image/ctl.h"
#include "image/pages.h"

static int add(struct ctl_diffs *out, uint64_t page, enum ctl_change what)
{
	struct ctl_diff *last = out->n ? &out->data[out->n - 1] : NULL;

	if (last && last->what == what && last->page + last->n == page) {
		last->n++;
		return 0;
	}
	last = vec_push(out);
	if (!last)
		return fail(-ENOMEM, "compare control structures");
	*last = (struct ctl_diff){page, 1, what};
	return 0;
}

static bool same(const struct ctl_entry *a, const struct ctl_entry *b)
{
	return !((a->flags ^ b->flags) & CTL_ZERO) && hash_equal(&a->hash, &b->hash);
}

int ctl_compare(const struct ctl *from, const struct ctl *to, struct ctl_diffs *out)
{
	uint64_t pa = 0, pb = 0;
	const struct ctl_entry *a = ctl_next(from, &pa), *b = ctl_next(to, &pb);
	int err = 0;

	while (!err && (a || b)) {
		if (!b || (a && pa < pb)) {
			err = add(out, pa, CTL_GONE);
		} else if (!a || pb < pa) {
			err = add(out, pb, CTL_ADDED);
		} else if (!same(a, b)) {
			err = add(out, pa, CTL_MODIFIED);
		}
		if (!a || (b && pb < pa)) {
			pb++;
			b = ctl_next(to, &pb);
		} else if (!b || pa < pb) {
			pa++;
			a = ctl_next(from, &pa);
		} else {
			pa++, pb++;
			a = ctl_next(from, &pa);
			b = ctl_next(to, &pb);
		}
	}
	return err;
}
