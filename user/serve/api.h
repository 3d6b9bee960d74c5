/* SPDX-License-Identifier: GPL-2.0 */
/* The JSON behind /api: docs/api.md. All give a new value (NULL without memory) and are called with the model's lock held. */
#ifndef ICP_SERVE_API_H
#define ICP_SERVE_API_H

#include <jansson.h>
#include <stdio.h>

#include "serve/model.h"

json_t *api_status(const struct model *m);
json_t *api_processes(const struct model *m);
json_t *api_segments(const struct model *m);
json_t *api_forecast(const struct model *m);
json_t *api_process(const struct model *m, const struct proc *p, size_t history);
json_t *api_flamegraph(const struct model *m, const struct proc *p);
/* Many numbers: as text. */
void api_heatmap(const struct model *m, const struct proc *p, size_t rows, size_t columns,
		 FILE *out);
/* The data of event `sample`. */
json_t *api_sample(const struct model *m);
/* A version or a failure, as in /api/versions and event `checkpoint`. */
json_t *api_cut(const struct session_cut *cut);

#endif
