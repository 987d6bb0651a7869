# Two images over static binaries that `make binaries` puts into bin/:
#
#   docker build --target operator --tag trainyard/operator:dev .
#   docker build --target runtime  --tag trainyard/runtime:dev .
#
# Nothing is pulled, and nothing is in them but the programs.

FROM scratch AS operator
COPY bin/image/manager bin/image/gateway /
USER 65532:65532
ENTRYPOINT ["/manager"]

FROM scratch AS runtime
# The program runtime, and trainer and server, which are links to it.
COPY bin/image/runtime/ /
USER 65532:65532
ENTRYPOINT ["/server"]
