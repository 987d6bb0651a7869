# Two images over static binaries that `make binaries` puts into bin/:
#
#   docker build --target operator --tag trainyard/operator:dev .
#   docker build --target runtime  --tag trainyard/runtime:dev .
#
# Nothing is pulled, and nothing is in them but the programs, which are static, and
# the libraries of the one that is not.

FROM scratch AS operator
COPY bin/image/manager bin/image/gateway /
USER 65532:65532
ENTRYPOINT ["/manager"]

FROM scratch AS runtime
# The program runtime, and trainer, server and follower, which are links to it.
COPY bin/image/runtime/ /
# collective, which connects the workers of a run, with its libraries.
COPY bin/gloo/ /
# Keeps a thread of Go's runtime from falling asleep, and says nothing for 24 days:
# see docs/design.
ENV GODEBUG=schedtrace=2147483647
USER 65532:65532
ENTRYPOINT ["/server"]
