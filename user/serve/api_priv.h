/* SPDX-License-Identifier: GPL-2.0 */
/* Between the files of the API only. */
#ifndef ICP_SERVE_API_PRIV_H
#define ICP_SERVE_API_PRIV_H

#include "serve/api.h"

/* A process as /api/processes lists it. */
json_t *api_with_totals(const struct model *m, const struct proc *p);

#endif
