# Builds Runbell from source:  docker build -t runbell .
# The image has the program, certificates of public authorities, and nothing else: no shell. It runs as user 65532.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/runbell ./cmd/runbell && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/runbell /usr/local/bin/runbell
COPY --from=build --chown=65532:65532 /out/data /data
ENV RUNBELL_ADDR=:8484 RUNBELL_DATA_DIR=/data
VOLUME /data
EXPOSE 8484
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/runbell"]
CMD ["serve"]
