// Checks trees, proofs and notes that the crate made with golang.org/x/mod, and makes some for the crate to check.
//
// Usage: main check < ours.json; main write > theirs.json. The JSON is that of crates/ledger/examples/exchange.rs. See ./run.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	sizes  = 130  // sizes up to this one have all their proofs in the file
	leaves = 1000 // leaves of the tree whose tiles are in the file
)

type exchange struct {
	Leaves      [][]byte      `json:"leaves"`
	Roots       []tlog.Hash   `json:"roots"`
	Inclusion   []inclusion   `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
	Tiles       []tile        `json:"tiles"`
	Notes       []signedNote  `json:"notes"`
}

type inclusion struct {
	Index  int64            `json:"index"`
	Size   int64            `json:"size"`
	Hashes tlog.RecordProof `json:"hashes"`
}

type consistency struct {
	Old    int64          `json:"old"`
	New    int64          `json:"new"`
	Hashes tlog.TreeProof `json:"hashes"`
}

type tile struct {
	Path   string `json:"path"`
	Hashes []byte `json:"hashes"`
}

type signedNote struct {
	Key   string `json:"key"`
	Note  string `json:"note"`
	Opens bool   `json:"opens"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: main check|write")
	}
	switch os.Args[1] {
	case "check":
		var ours exchange
		must(json.NewDecoder(os.Stdin).Decode(&ours))
		check(&ours)
		fmt.Printf("checked %d roots, %d inclusion proofs, %d consistency proofs, %d tiles, %d notes\n",
			len(ours.Roots), len(ours.Inclusion), len(ours.Consistency), len(ours.Tiles), len(ours.Notes))
	case "write":
		must(json.NewEncoder(os.Stdout).Encode(write()))
	default:
		log.Fatal("usage: main check|write")
	}
}

func check(ours *exchange) {
	t := treeOf(ours.Leaves)
	for i, root := range ours.Roots {
		if root != t.roots[i] {
			log.Fatalf("root of size %d differs", i+1)
		}
	}
	for _, p := range ours.Inclusion {
		root, leaf := t.roots[p.Size-1], tlog.RecordHash(ours.Leaves[p.Index])
		must(tlog.CheckRecord(p.Hashes, p.Size, root, p.Index, leaf))
		theirs, err := tlog.ProveRecord(p.Size, p.Index, t)
		must(err)
		if fmt.Sprint(theirs) != fmt.Sprint(p.Hashes) {
			log.Fatalf("proof of leaf %d in size %d differs", p.Index, p.Size)
		}
	}
	for _, p := range ours.Consistency {
		must(tlog.CheckTree(p.Hashes, p.New, t.roots[p.New-1], p.Old, t.roots[p.Old-1]))
		theirs, err := tlog.ProveTree(p.New, p.Old, t)
		must(err)
		if fmt.Sprint(theirs) != fmt.Sprint(p.Hashes) {
			log.Fatalf("proof from size %d to %d differs", p.Old, p.New)
		}
	}
	theirs := t.tiles()
	if len(theirs) != len(ours.Tiles) {
		log.Fatalf("%d tiles, not %d", len(ours.Tiles), len(theirs))
	}
	for _, ours := range ours.Tiles {
		found := false
		for _, tile := range theirs {
			found = found || ours.Path == tile.Path && bytes.Equal(ours.Hashes, tile.Hashes)
		}
		if !found {
			log.Fatalf("tile %s differs", ours.Path)
		}
	}
	for _, n := range ours.Notes {
		verifier, err := note.NewVerifier(n.Key)
		must(err)
		if _, err = note.Open([]byte(n.Note), note.VerifierList(verifier)); (err == nil) != n.Opens {
			log.Fatalf("note should open: %v, but: %v\n%s", n.Opens, err, n.Note)
		}
	}
}

func write() *exchange {
	out := &exchange{}
	for i := 0; i < leaves; i++ {
		entry := sha256.Sum256([]byte(fmt.Sprintf("line %d", i)))
		out.Leaves = append(out.Leaves, entry[:])
	}
	t := treeOf(out.Leaves)
	out.Roots = t.roots
	for size := int64(1); size <= sizes+1; size++ {
		size := size
		if size == sizes+1 {
			size = leaves
		}
		for index := int64(0); index < size; index++ {
			record, err := tlog.ProveRecord(size, index, t)
			must(err)
			out.Inclusion = append(out.Inclusion, inclusion{index, size, record})
			tree, err := tlog.ProveTree(size, index+1, t)
			must(err)
			out.Consistency = append(out.Consistency, consistency{index + 1, size, tree})
		}
	}
	out.Tiles = t.tiles()
	for _, text := range []string{"a\n", "a\n\nb\n", "è subito sera.\n"} {
		skey, vkey, err := note.GenerateKey(rand.Reader, "example.com/log")
		must(err)
		_, other, err := note.GenerateKey(rand.Reader, "example.com/log")
		must(err)
		signer, err := note.NewSigner(skey)
		must(err)
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		must(err)
		out.Notes = append(out.Notes,
			signedNote{vkey, string(signed), true},
			signedNote{other, string(signed), false},
			signedNote{vkey, "x" + string(signed), false})
	}
	return out
}

// A tree in memory, its hashes in the order of tlog.StoredHashIndex.
type tree struct {
	hashes []tlog.Hash
	roots  []tlog.Hash
}

func treeOf(data [][]byte) *tree {
	t := &tree{}
	for i, leaf := range data {
		hashes, err := tlog.StoredHashes(int64(i), leaf, t)
		must(err)
		t.hashes = append(t.hashes, hashes...)
		root, err := tlog.TreeHash(int64(i)+1, t)
		must(err)
		t.roots = append(t.roots, root)
	}
	return t
}

func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, index := range indexes {
		hashes = append(hashes, t.hashes[index])
	}
	return hashes, nil
}

func (t *tree) tiles() []tile {
	var tiles []tile
	ids := tlog.NewTiles(8, 0, int64(len(t.roots)))
	for i, id := range ids {
		// The last tile of a level is named with each width up to the one that it has.
		if i+1 < len(ids) && ids[i+1].L == id.L && ids[i+1].N == id.N {
			continue
		}
		data, err := tlog.ReadTileData(id, t)
		must(err)
		// Here the paths name the height of tiles, in tlog-tiles it is always 8 and not named.
		tiles = append(tiles, tile{strings.Replace(id.Path(), "tile/8/", "tile/", 1), data})
	}
	return tiles
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
