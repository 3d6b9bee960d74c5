/* SPDX-License-Identifier: GPL-2.0 */
#ifndef ICP_SERVE_METRICS_H
#define ICP_SERVE_METRICS_H

#include <stdio.h>

#include "serve/model.h"

/* Everything as Prometheus text. Called with the lock held. */
void metrics_write(const struct model *m, FILE *out);

/* How old the last sample is, in seconds. */
double model_age(const struct model *m);

#endif
