/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For the static analysers only, included before everything: they see one file at a time, and so can not know that fail(),
 * refuse() and wrap() return the negative error they are given. Without it every `return fail(...)` looks like a success.
 */
#include "base/err.h"

#define icp_negative(err)                                                                      \
	({                                                                                     \
		int negative_ = (err);                                                         \
		if (negative_ >= 0)                                                            \
			__builtin_unreachable();                                               \
		negative_;                                                                     \
	})
#define fail(err, ...) (fail((err), __VA_ARGS__), icp_negative(err))
#define refuse(err, ...) (refuse((err), __VA_ARGS__), icp_negative(err))
#define wrap(err, ...) (wrap((err), __VA_ARGS__), icp_negative(err))
