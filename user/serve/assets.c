// SPDX-License-Identifier: GPL-2.0
#include "serve/assets.h"

#include <string.h>

static const char overview[] =
	"icp-bpf serve\n\n"
	"/metrics                          Prometheus\n"
	"/-/healthy, /-/ready\n"
	"/api/status, /api/processes, /api/segments, /api/versions, /api/forecast\n"
	"/api/processes/PID, .../heatmap, .../flamegraph\n"
	"/api/events                       server-sent events\n";

const struct asset *asset_find(const char *path)
{
	static const struct asset list = {
		.path = "/",
		.type = "text/plain; charset=utf-8",
		.data = (const unsigned char *)overview,
		.len = sizeof(overview) - 1,
	};

	return strcmp(path, list.path) ? NULL : &list;
}
