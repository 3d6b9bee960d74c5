// SPDX-License-Identifier: GPL-2.0
/* The same program, position-independent and without symbols. */
#include "targets/symbols_target.h"
