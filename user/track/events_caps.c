// SPDX-License-Identifier: GPL-2.0
/* Why eBPF is refused, in words. */
#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "track/events_priv.h"

static uint64_t effective_caps(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &header, data))
		return 0;
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

int events_allowed(void)
{
	uint64_t caps = effective_caps();
	bool admin = caps & 1ull << CAP_SYS_ADMIN;
	bool bpf = admin || caps & 1ull << CAP_BPF;
	bool perfmon = admin || caps & 1ull << CAP_PERFMON;

	if (bpf && perfmon)
		return 0;
	return refuse(-EPERM, "eBPF needs %s: run as root, or give it with setcap",
		      bpf	? "CAP_PERFMON"
		      : perfmon ? "CAP_BPF"
				: "CAP_BPF and CAP_PERFMON");
}

int events_refused(int err, const char *what)
{
	if (err == -EPERM || err == -EACCES)
		return refuse(-EPERM,
			      "%s: the kernel refuses eBPF although CAP_BPF and CAP_PERFMON "
			      "are there: they must "
			      "be held in the initial user namespace, and neither lockdown nor "
			      "seccomp forbid it",
			      what);
	return fail(err, "%s", what);
}
