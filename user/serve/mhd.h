/* SPDX-License-Identifier: GPL-2.0 */
/*
 * libmicrohttpd, loaded when it is needed: with what it needs itself (GnuTLS and its libraries) it would take half of the time that
 * every icp-bpf command takes to start.
 */
#ifndef ICP_SERVE_MHD_H
#define ICP_SERVE_MHD_H

#include <microhttpd.h>

#include "base/err.h"

#define MHD_FUNCTIONS(X)                                                                       \
	X(MHD_add_response_header)                                                             \
	X(MHD_create_response_from_buffer)                                                     \
	X(MHD_create_response_from_buffer_with_free_callback_cls)                              \
	X(MHD_create_response_from_callback)                                                   \
	X(MHD_destroy_response)                                                                \
	X(MHD_get_connection_info)                                                             \
	X(MHD_lookup_connection_value)                                                         \
	X(MHD_queue_response)                                                                  \
	X(MHD_resume_connection)                                                               \
	X(MHD_start_daemon)                                                                    \
	X(MHD_stop_daemon)                                                                     \
	X(MHD_suspend_connection)

struct mhd {
#define X(name) __typeof__(name) *name;
	MHD_FUNCTIONS(X)
#undef X
};
extern struct mhd mhd;

/* Before any of these is called. -ENOENT, with the reason, where it can't be loaded. */
int mhd_load(void) _must_use_;

#define MHD_add_response_header mhd.MHD_add_response_header
#define MHD_create_response_from_buffer mhd.MHD_create_response_from_buffer
#define MHD_create_response_from_buffer_with_free_callback_cls                                 \
	mhd.MHD_create_response_from_buffer_with_free_callback_cls
#define MHD_create_response_from_callback mhd.MHD_create_response_from_callback
#define MHD_destroy_response mhd.MHD_destroy_response
#define MHD_get_connection_info mhd.MHD_get_connection_info
#define MHD_lookup_connection_value mhd.MHD_lookup_connection_value
#define MHD_queue_response mhd.MHD_queue_response
#define MHD_resume_connection mhd.MHD_resume_connection
#define MHD_start_daemon mhd.MHD_start_daemon
#define MHD_stop_daemon mhd.MHD_stop_daemon
#define MHD_suspend_connection mhd.MHD_suspend_connection

#endif
