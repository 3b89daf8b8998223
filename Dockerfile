# docker build -t affectory . && docker run --rm -it -v "$PWD/corpora:/affectory/corpora" affectory
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /affectory
# What an installation depends on first, so that a change of the code installs nothing anew.
COPY Makefile constraints.txt requirements*.txt ./
RUN make .venv/.installed .venv/.weights
COPY . .
ENV PATH=/affectory/.venv/bin:$PATH AFFECTORY_CACHE=/cache
VOLUME /cache
CMD ["bash"]
