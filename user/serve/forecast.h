/* SPDX-License-Identifier: GPL-2.0 */
/* What the next checkpoint of a job would cost, and how often to take one: docs/forecast.md. */
#ifndef ICP_SERVE_FORECAST_H
#define ICP_SERVE_FORECAST_H

#include "serve/model.h"

struct forecast {
	bool incremental;      /* else the next one is full */
	uint64_t pages, bytes; /* of the next one, cut now */
	uint64_t full_bytes;   /* of a full one */
	uint64_t
		increment_bytes; /* of an increment: the next one, or of the recommended interval */
	double pause_s;
	size_t measured;	 /* from so many increments; 0: from constants */
	double dirtied[WINDOWS]; /* bytes that the job dirties within window_seconds[] */
	double interval_s, overhead;
};

/* @age_s: how old the last sample is. */
void forecast_job(const struct model *m, const struct job *job, double age_s,
		  struct forecast *out);

/*
 * Pages that @job has written since its last version, @age_s after the last sample; -1 when that is not known. *@growth: by how many it
 * grows a second.
 */
double forecast_written(const struct model *m, const struct job *job, double age_s,
			double *growth);

/*
 * The interval between checkpoints that cost @cost_s each which loses the least time with failures every @mtbf_s: Young's, with
 * Daly's higher orders. All in seconds, above 0.
 */
double forecast_interval(double cost_s, double mtbf_s);

#endif
