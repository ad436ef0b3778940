/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images as people write them: "alpine", "ghcr.io/a/b:1", "r:5000/a@sha256:...". */
#ifndef SHOAL_DAEMON_IMAGE_NAME_H
#define SHOAL_DAEMON_IMAGE_NAME_H

#include "digest.h"
#include "err.h"
#include "limits.h"

struct image_name {
    char registry[HOST_BYTES_MAX + 1]; /* lower case; docker.io where none is written */
    char repository[REPOSITORY_BYTES_MAX + 1];
    char tag[TAG_BYTES_MAX + 1]; /* "latest" where neither it nor a digest is written, else "" */
    bool has_digest;
    struct digest digest; /* wins over a tag, as with the runtimes */
};

/* What comes before the first '/' is a registry if it has a '.' or ':' or is "localhost"; Docker
 * Hub's own images are below library/. 0, or E_MALFORMED: no such name; *out is then unspecified.
 */
MUST_USE int image_name_parse(const char *text, struct image_name *out);

#endif
