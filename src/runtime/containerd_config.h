/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd's configuration, versions 1 to 3, with its imports: where hosts.toml files are, and
 * whether the CRI plugin would still start. Its own checks (1.6 to 2.x) refuse `mirrors` and
 * `configs.*.tls` together with config_path; the plugin is left out then, and the kubelet has no
 * runtime.
 */
#ifndef SHOAL_RUNTIME_CONTAINERD_CONFIG_H
#define SHOAL_RUNTIME_CONTAINERD_CONFIG_H

#include "plan.h"
#include "toml.h"

#define CONTAINERD_CONFIG  "/etc/containerd/config.toml"
#define CONTAINERD_CERTS_D "/etc/containerd/certs.d"
#define DOCKER_CERTS_D     "/etc/docker/certs.d"
/* Main file and imports. */
#define CONTAINERD_FILES_MAX 64
/* Directories in config_path, parted by ':'. */
#define CONTAINERD_ROOTS_MAX 8

struct containerd_file {
    const char *host_path;
    struct image image;
    struct toml toml;
};
struct containerd_config {
    struct containerd_file files[CONTAINERD_FILES_MAX]; /* the main one first, if there is one */
    unsigned file_count;
    unsigned version;        /* 1 to 3 */
    const char *config_path; /* "" if none is set */
    char conflict[256];      /* "FILE:LINE: mirrors", what does not go with config_path; "" none */
    const char *drop_in;     /* import with a section of the CRI plugin; NULL none */
};

/* Reads all files. 0 (config->file_count 0: there is no configuration); E_REFUSED for what is
 * broken or not understood, and as tree_read. */
MUST_USE int containerd__config(struct runtime_plan *plan, const char *host_path,
                                struct containerd_config *config, struct runtime_error *error);
/* Adds `config_path` to the main file's change list. 0; E_REFUSED where that would not do. */
MUST_USE int containerd__set_config_path(struct runtime_plan *plan,
                                         const struct containerd_config *config,
                                         const char *config_path, struct runtime_error *error);

#endif
