# IF-Guide Studio on processors. docs/deploy.md says how to build and start it; tests/test_container.py runs its steps.
FROM python:3.12-slim

# torch for processors alone: a quarter of what the usual wheel and its GPU libraries take.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "torch>=2.6"

WORKDIR /opt/ifguide
COPY pyproject.toml README.md LICENSE app.py ./
COPY ifguide ifguide
COPY pages pages
COPY docs/method.md docs/method.md
COPY .streamlit/config.toml .streamlit/config.toml
RUN pip install --no-cache-dir .

RUN useradd --create-home ifguide && mkdir /studies && chown ifguide /studies
USER ifguide
ENV IFGUIDE_CACHE=/studies HF_HOME=/studies/.hugging-face
VOLUME /studies
WORKDIR /studies

# Every address of the container, which is a network of its own: publish the port on 127.0.0.1 alone.
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"
ENTRYPOINT ["ifguide"]
CMD ["app", "--server.address", "0.0.0.0", "--server.port", "8501"]
