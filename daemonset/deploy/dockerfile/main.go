// Command dockerfile runs the linter of docker build --check on a Dockerfile, without docker, and prints the stages.
//
//	go run . ../../../Dockerfile
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dockerfile FILE")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "dockerfile:", err)
		os.Exit(1)
	}
}

// images are the names of images that stages begin from. They resolve to an empty image, so that no registry is asked;
// another name, such as that of a stage that is not there, does not resolve.
type images map[string]bool

// ResolveImageConfig implements llb.ImageMetaResolver.
func (i images) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if !i[ref] {
		return "", "", nil, fmt.Errorf("%s is neither a stage nor the base of one", ref)
	}
	config := []byte(`{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin"]},"rootfs":{"type":"layers"}}`)
	return ref, digest.FromBytes(config), config, nil
}

func run(ctx context.Context, file string, out io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	tree, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("parse %s: %w", file, err)
	}
	stages, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		return fmt.Errorf("read the instructions of %s: %w", file, err)
	}
	bases := make(images)
	for i := range stages {
		if named, err := reference.ParseNormalizedNamed(stages[i].BaseName); err == nil {
			bases[reference.TagNameOnly(named).String()] = true
		}
		fmt.Fprintf(out, "%s:%d: stage %s from %s, %d instructions\n", file, stages[i].Location[0].Start.Line, stages[i].Name, stages[i].BaseName, len(stages[i].Commands))
	}
	source := llb.NewSourceMap(nil, file, "Dockerfile", text)
	source.Definition = &llb.Definition{}
	found, err := dockerfile2llb.DockerfileLint(ctx, text, dockerfile2llb.ConvertOpt{SourceMap: source, MetaResolver: bases})
	if err != nil {
		return fmt.Errorf("lint %s: %w", file, err)
	}
	if found.Error != nil {
		return fmt.Errorf("lint %s: %s", file, found.Error.Message)
	}
	for _, w := range found.Warnings {
		line := int32(0)
		if w.Location != nil && len(w.Location.Ranges) > 0 {
			line = w.Location.Ranges[0].Start.Line
		}
		fmt.Fprintf(out, "%s:%d: %s: %s\n", file, line, w.RuleName, strings.TrimSpace(w.Detail))
	}
	if len(found.Warnings) > 0 {
		return errors.New("the linter has something to say")
	}
	return nil
}
